#include "text/utf8.h"

#include <cstring>

#include "base/check.h"

namespace nibble::text {
namespace {

// A lead byte decides how many bytes follow and, where overlong forms, surrogates or values above U+10FFFF must be kept
// out, in which range the first of them lies (Unicode table 3-7).
struct Lead {
  uint8_t size;  // of the whole character; 0: not a lead byte
  uint8_t low, high;
};

Lead lead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

size_t ascii_prefix(std::string_view bytes) {
  size_t n = 0;
  for (uint64_t word; n + sizeof word <= bytes.size(); n += sizeof word) {
    std::memcpy(&word, bytes.data() + n, sizeof word);
    if (word & 0x8080808080808080u) break;
  }
  while (n < bytes.size() && static_cast<uint8_t>(bytes[n]) < 0x80) ++n;
  return n;
}

// Length of the valid text at the start.
size_t valid_prefix(std::string_view bytes) {
  size_t n = 0;
  for (;;) {
    n += ascii_prefix(bytes.substr(n));
    if (n == bytes.size()) return n;
    const Utf8Unit unit = read_utf8(bytes.substr(n));
    if (unit.kind != Utf8Unit::Kind::scalar) return n;
    n += unit.size;
  }
}

}  // namespace

Utf8Unit read_utf8(std::string_view bytes) {
  NIBBLE_CHECK(!bytes.empty());
  using Kind = Utf8Unit::Kind;
  const auto first = static_cast<uint8_t>(bytes[0]);
  const Lead form = lead(first);
  if (form.size == 0) return {Kind::invalid, 1, 0xFFFD};
  if (form.size == 1) return {Kind::scalar, 1, first};

  char32_t scalar = first & (0xFFu >> (form.size + 1));
  for (uint8_t i = 1; i < form.size; ++i) {
    if (i == bytes.size()) return {Kind::incomplete, i, 0xFFFD};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? form.low : 0x80, high = i == 1 ? form.high : 0xBF;
    if (byte < low || byte > high) return {Kind::invalid, i, 0xFFFD};
    scalar = scalar << 6 | (byte & 0x3Fu);
  }
  return {Kind::scalar, form.size, scalar};
}

bool valid_utf8(std::string_view bytes) {
  return valid_prefix(bytes) == bytes.size();
}

std::string sanitize_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t good = valid_prefix(bytes);
    text += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    text += kReplacement;
    bytes.remove_prefix(read_utf8(bytes).size);
  }
  return text;
}

size_t complete_prefix(std::string_view bytes) {
  // An incomplete character has at most three bytes. The leftmost start that reaches the end is the one: a lead byte
  // never continues another.
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t at = bytes.size() - back;
    if (lead(static_cast<uint8_t>(bytes[at])).size == 0) continue;
    return read_utf8(bytes.substr(at)).kind == Utf8Unit::Kind::incomplete ? at : bytes.size();
  }
  return bytes.size();
}

}  // namespace nibble::text

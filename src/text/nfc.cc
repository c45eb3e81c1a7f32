#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

// Canonical ordering. utf8proc's own is an insertion sort, quadratic in the length of a run of marks.
void order_marks(std::vector<utf8proc_int32_t>& points) {
  const auto rank = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto first = points.begin(); first != points.end();) {
    if (rank(*first) == 0) {
      ++first;
      continue;
    }
    const auto last = std::find_if(first, points.end(), [&](utf8proc_int32_t c) { return rank(c) == 0; });
    std::stable_sort(first, last, [&](utf8proc_int32_t a, utf8proc_int32_t b) { return rank(a) < rank(b); });
    first = last;
  }
}

std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::array<utf8proc_int32_t, 16> parts;  // the longest canonical decomposition has 4
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = read_utf8(text);
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(unit.scalar), parts.data(), parts.size(),
                                           UTF8PROC_DECOMPOSE, nullptr);
    NIBBLE_CHECK(n > 0 && n <= static_cast<utf8proc_ssize_t>(parts.size()));
    points.insert(points.end(), parts.begin(), parts.begin() + n);
    text.remove_prefix(unit.size);
  }
  return points;
}

}  // namespace

std::string nfc(std::string_view text) {
  std::vector<utf8proc_int32_t> points = decompose(text);
  order_marks(points);
  const auto size = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                             static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  NIBBLE_CHECK(size >= 0);
  std::string composed;
  composed.reserve(text.size());
  std::array<utf8proc_uint8_t, 4> bytes;
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    const auto n = utf8proc_encode_char(points[i], bytes.data());
    composed.append(bytes.begin(), bytes.begin() + n);
  }
  return composed;
}

bool surely_nfc(std::string_view text) {
  // The first character that composes with one before it, or stands in a decomposition, is U+0300, written CC 80; no
  // byte of a character below it is as large as CC.
  uint8_t largest = 0;
  for (const char byte : text) largest = std::max(largest, static_cast<uint8_t>(byte));
  return largest < 0xCC;
}

}  // namespace nibble::text

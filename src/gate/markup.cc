#include "gate/markup.h"

#include <fmt/format.h>

#include "base/sha256.h"
#include "gate/chat_stream.h"
#include "io/svg_plot.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

// A character below U+0020 other than tab and newline, or U+007F, by its picture: E2 90 80 is U+2400.
std::string picture(unsigned char control) {
  const auto last = static_cast<char>(control == 0x7F ? 0xA1 : 0x80 + control);
  return {'\xE2', '\x90', last};
}

bool is_control(char32_t c) {
  return (c < 0x20 && c != '\t' && c != '\n') || c == 0x7F;
}

// C1 controls are allowed in XML, but browsers and terminals disagree about them.
bool is_forbidden(char32_t c) {
  return (c >= 0x80 && c < 0xA0) || (c & 0xFFFE) == 0xFFFE || (c >= 0xFDD0 && c <= 0xFDEF);
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) {
      out += i + j <= bytes.size() ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

}  // namespace

std::string markup_text(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  while (!text.empty()) {
    const text::Utf8Unit unit = text::read_utf8(text);
    if (unit.kind != text::Utf8Unit::Kind::scalar || is_forbidden(unit.scalar)) {
      plain += text::kReplacement;
    } else if (is_control(unit.scalar)) {
      plain += picture(static_cast<unsigned char>(unit.scalar));
    } else {
      plain += text.substr(0, unit.size);
    }
    text.remove_prefix(unit.size);
  }
  return xml_escape(plain);
}

std::string data_block(std::string_view attributes, const Json& json) {
  std::string out = fmt::format("<script type=\"application/json\" {}>", attributes);
  for (const char c : dump(json)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out + "</script>\n";
}

std::string csp_source(std::string_view script) {
  const std::string hex = sha256_of(script);
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return "sha256-" + base64(bytes);
}

}  // namespace nibble::gate

// White space of model output, by bytes: the six blanks of ASCII.
#pragma once

#include <string_view>

namespace nibble::text {

inline constexpr std::string_view kBlanks = " \t\n\r\v\f";

constexpr bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// Without the blanks at both ends.
constexpr std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

}  // namespace nibble::text

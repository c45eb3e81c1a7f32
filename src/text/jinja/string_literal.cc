#include "text/jinja/string_literal.h"

#include <fmt/format.h>

#include <charconv>

#include "text/jinja/str.h"

namespace nibble::text::jinja {
namespace {

// The letter after the backslash and what it stands for.
char simple_escape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

size_t hex_digits(char c) {
  return c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
}

// Reads exactly `digits` digits of `base`; -1 if they are not there.
int64_t read_digits(std::string_view text, size_t digits, int base) {
  if (text.size() < digits) return -1;
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + digits, value, base);
  return result.ec == std::errc() && result.ptr == text.data() + digits && value >= 0 ? value : -1;
}

size_t octal_digits(std::string_view text) {
  size_t n = 0;
  while (n < 3 && n < text.size() && text[n] >= '0' && text[n] <= '7') ++n;
  return n;
}

}  // namespace

std::string unescape(std::string_view literal, std::string& value) {
  for (size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\') {
      value += literal[i];
      continue;
    }
    const char c = literal[++i];  // the lexer never ends a literal behind a lone backslash
    const std::string_view rest = literal.substr(i + 1);
    if (const char simple = simple_escape(c)) {
      value += simple;
    } else if (c == '\n') {
      continue;
    } else if (const size_t octal = octal_digits(literal.substr(i))) {
      value += encode_utf8(static_cast<int32_t>(read_digits(literal.substr(i), octal, 8)));
      i += octal - 1;
    } else if (const size_t hex = hex_digits(c)) {
      const int64_t code = read_digits(rest, hex, 16);
      if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        return fmt::format("expected a code point after '\\{}', got '{}'", c, rest.substr(0, hex));
      }
      value += encode_utf8(static_cast<int32_t>(code));
      i += hex;
    } else if (c == 'N') {
      return "expected a string without '\\N', got one";
    } else {
      value += '\\';
      value += c;
    }
  }
  return {};
}

}  // namespace nibble::text::jinja

// UTF-8 as the Unicode standard defines it (table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
//
// Broken bytes are replaced by the rule of "maximal subparts" (Unicode 3.9, WHATWG, Rust's from_utf8_lossy): every
// longest start of a well-formed character that is not continued becomes one U+FFFD, every other stray byte another.
// All functions are pure, take any bytes and run in linear time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::text {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// What stands at the start of some bytes.
struct Utf8Unit {
  enum class Kind : uint8_t {
    scalar,      // one well-formed character of `size` bytes
    invalid,     // `size` bytes that no continuation can repair
    incomplete,  // the bytes end inside a character that is well-formed so far; `size` is all that is left
  };
  Kind kind;
  uint8_t size;     // 1..4
  char32_t scalar;  // U+FFFD unless kind is scalar
};

/// Reads the first unit; `bytes` must not be empty.
Utf8Unit read_utf8(std::string_view bytes);

bool valid_utf8(std::string_view bytes);

/// The text with broken bytes replaced; valid text is returned as it is.
std::string sanitize_utf8(std::string_view bytes);

/// Length of the longest prefix that does not end inside a character: everything, or everything but the last one to
/// three bytes where they are the start of a character that more bytes could complete. For bytes a and b,
/// sanitize(a[:complete_prefix(a)]) + sanitize(a[complete_prefix(a):] + b) = sanitize(a + b).
size_t complete_prefix(std::string_view bytes);

/// The first bytes of a text, at most `bytes` of them, that cut no character in two.
inline std::string_view clipped(std::string_view text, size_t bytes) {
  return text.size() <= bytes ? text : text.substr(0, complete_prefix(text.substr(0, bytes)));
}

}  // namespace nibble::text

// Escapes of a string literal, as Python's unicode-escape reads them.
#pragma once

#include <string>
#include <string_view>

namespace nibble::text::jinja {

/// Appends the value of the literal's inside to `value`. Returns what is wrong, or nothing. Unknown escapes keep their
/// backslash; a backslash before a newline joins the lines.
std::string unescape(std::string_view literal, std::string& value);

}  // namespace nibble::text::jinja

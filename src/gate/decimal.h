// Decimal numbers in text, compared as decimals: 18 is 18.0 and 0.1 is no sum of powers of two.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nibble::gate {

/// The last number of a text that is written in digits, in one form for all equal numbers: "-1250.5", without commas,
/// currency signs, leading zeros, zeros at the end of a fraction, and a sign of zero. A comma between two digits
/// belongs to the number, a full stop where a digit follows; "-" is a sign unless a letter, a digit or a bracket stands
/// before it. Number words count for nothing. Nothing where there is no digit. Pure, linear.
std::optional<std::string> last_decimal(std::string_view text);

/// The same of a text that is one number and nothing else but blanks around it.
std::optional<std::string> whole_decimal(std::string_view text);

}  // namespace nibble::gate

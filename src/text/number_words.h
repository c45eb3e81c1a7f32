// English number words.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble::text {

/// The value of a lower-case number word: "zero" … "nineteen", "twenty" … "ninety", "hundred", "thousand", "lakh",
/// "million", "crore", "billion".
std::optional<int64_t> number_word(std::string_view word);

}  // namespace nibble::text

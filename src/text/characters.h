// Kinds of characters, by the Unicode tables of utf8proc.
#pragma once

#include <cstdint>

namespace nibble::text {

bool is_letter(char32_t scalar);       // L*
bool is_mark(char32_t scalar);         // M*
bool is_digit(char32_t scalar);        // Nd
bool is_capital(char32_t scalar);      // Lu, Lt
bool is_white_space(char32_t scalar);  // White_Space

}  // namespace nibble::text

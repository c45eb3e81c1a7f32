// The alphabet in which byte-level BPE writes bytes as printable characters (GPT-2's bytes_to_unicode): '!'..'~',
// U+00A1..U+00AC and U+00AE..U+00FF stand for themselves, the other 68 bytes, in order, for U+0100..U+0143. So a space
// is written U+0120 ("Ġ") and a newline U+010A ("Ċ").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

/// The bytes that `letters` (UTF-8) writes; nothing when a character is not of the alphabet.
std::optional<std::string> bytes_from_letters(std::string_view letters);

/// The character, as UTF-8, that writes the byte.
std::string letter_of_byte(uint8_t byte);

}  // namespace nibble::text

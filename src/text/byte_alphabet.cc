#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace nibble::text {
namespace {

constexpr int kLetters = 256 + 68;

struct Alphabet {
  std::array<uint16_t, 256> letter{};
  std::array<int16_t, kLetters> byte{};  // -1: no letter of the alphabet

  constexpr Alphabet() {
    for (int16_t& b : byte) b = -1;
    uint16_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      letter[b] = printable ? static_cast<uint16_t>(b) : next++;
      byte[letter[b]] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::optional<std::string> bytes_from_letters(std::string_view letters) {
  std::string bytes;
  while (!letters.empty()) {
    const Utf8Unit unit = read_utf8(letters);
    if (unit.scalar >= kLetters || kAlphabet.byte[unit.scalar] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[unit.scalar]);
    letters.remove_prefix(unit.size);
  }
  return bytes;
}

std::string letter_of_byte(uint8_t byte) {
  const uint16_t letter = kAlphabet.letter[byte];
  if (letter < 0x80) return {static_cast<char>(letter)};
  return {static_cast<char>(0xC0 | letter >> 6), static_cast<char>(0x80 | (letter & 0x3F))};
}

}  // namespace nibble::text

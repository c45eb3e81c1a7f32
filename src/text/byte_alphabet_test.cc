#include "text/byte_alphabet.h"

#include <gtest/gtest.h>

#include <set>

namespace nibble::text {
namespace {

TEST(ByteAlphabet, WritesEveryByteOnceAndReadsItBack) {
  std::set<std::string> letters;
  std::string all, written;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string letter = letter_of_byte(static_cast<uint8_t>(byte));
    letters.insert(letter);
    written += letter;
    all += static_cast<char>(byte);
  }
  EXPECT_EQ(letters.size(), 256u);
  EXPECT_EQ(bytes_from_letters(written), all);
}

TEST(ByteAlphabet, Examples) {
  EXPECT_EQ(letter_of_byte('a'), "a");
  EXPECT_EQ(letter_of_byte(' '), "Ġ");
  EXPECT_EQ(letter_of_byte('\n'), "Ċ");
  EXPECT_EQ(letter_of_byte(0), "Ā");
  EXPECT_EQ(letter_of_byte(0xAD), "Ń");
  EXPECT_EQ(letter_of_byte(0xFF), "ÿ");
  EXPECT_EQ(bytes_from_letters("Ġhello"), " hello");
  EXPECT_EQ(bytes_from_letters(""), "");
  for (const char* foreign : {" ", "\u00AD", "\u0144", "語", "\x80"}) {
    EXPECT_EQ(bytes_from_letters(foreign), std::nullopt) << foreign;
  }
}

}  // namespace
}  // namespace nibble::text

#include "text/words.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble::text {
namespace {

using Words = std::vector<std::string_view>;

TEST(Words, AreRunsOfLettersMarksAndDigits) {
  EXPECT_EQ(words(""), Words());
  EXPECT_EQ(words(" - 😀 ₹…\n"), Words());
  EXPECT_EQ(words("Don't, H2O: 3.5!"), (Words{"Don", "t", "H2O", "3", "5"}));
  EXPECT_EQ(words("ನಮಸ್ಕಾರ। ಹೇಗಿದ್ದೀರಾ?"), (Words{"ನಮಸ್ಕಾರ", "ಹೇಗಿದ್ದೀರಾ"}));
  EXPECT_EQ(words("cafe\u0301 é"), (Words{"cafe\u0301", "é"}));
  EXPECT_EQ(words("ರ\u200Dಕ a\u200C b"), (Words{"ರ\u200Dಕ", "a", "b"}));
  EXPECT_EQ(words("a\xff"
                  "b\xe2\x82"),
            (Words{"a", "b"}));
}

TEST(Words, Speakable) {
  for (const char* text : {"a", "5", "**b**", "ನ", "```\nx\n```"}) EXPECT_TRUE(speakable(text)) << text;
  for (const char* text : {"", " \n", "...", "😀", "**", "```\n```", "<br>", "---", "\xff"})
    EXPECT_FALSE(speakable(text)) << text;
}

}  // namespace
}  // namespace nibble::text

#include "text/split_pattern.h"

#include <gtest/gtest.h>

#include <string>

#include "base/rng.h"
#include "text/tokenizer_fixture.h"
#include "text/utf8.h"

namespace nibble::text {
namespace {

using Pieces = std::vector<std::string_view>;

Pieces split(const char* pattern, std::string_view text) {
  const auto compiled = SplitPattern::compile(pattern, "test");
  Pieces pieces;
  EXPECT_TRUE(compiled.ok()) << compiled.status().text();
  if (compiled.ok()) {
    EXPECT_TRUE(compiled->split(text, pieces).ok());
  }
  return pieces;
}

TEST(SplitPattern, QwenWords) {
  EXPECT_EQ(split(kQwenPattern, ""), Pieces{});
  EXPECT_EQ(split(kQwenPattern, "I'll say: don'T go"), (Pieces{"I", "'ll", " say", ":", " don", "'T", " go"}));
  EXPECT_EQ(split(kQwenPattern, "in 1999"), (Pieces{"in", " ", "1", "9", "9", "9"}));
  EXPECT_EQ(split(kQwenPattern, "a   b \n\n c  "), (Pieces{"a", "  ", " b", " \n\n", " c", "  "}));
  EXPECT_EQ(split(kQwenPattern, "x = y;\r\n\r\nz"), (Pieces{"x", " =", " y", ";\r\n\r\n", "z"}));
  // Marks belong to the word (they do not in the pattern of Qwen2).
  EXPECT_EQ(split(kQwenPattern, "नमस्ते दुनिया"), (Pieces{"नमस्ते", " दुनिया"}));
}

TEST(SplitPattern, SpaceIsWhiteSpaceOfUnicode) {
  for (const char* space : {"\t", "\n", "\v", "\f", "\r", " ", "\u0085", "\u00A0", "\u1680", "\u2000", "\u200A",
                            "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"}) {
    EXPECT_EQ(split(R"(\s)", std::string("a") + space), (Pieces{"a", space}));
    EXPECT_EQ(split(R"([x\s-])", std::string("a") + space), (Pieces{"a", space}));
    EXPECT_EQ(split(R"(\S)", space), Pieces{space});
  }
  // U+180E was a space until Unicode 6.3, and still is to PCRE2.
  for (const char* other : {"\u180E", "\u200B", "\uFEFF", "\x1C", "\x1F"}) {
    EXPECT_EQ(split(R"(\s|x)", std::string(other) + "x"), (Pieces{other, "x"})) << other;
    EXPECT_EQ(split(R"([^\s]+)", std::string(other) + "x"), Pieces{std::string(other) + "x"}) << other;
  }
}

TEST(SplitPattern, KeepsWhatDoesNotMatch) {
  EXPECT_EQ(split("b+", "abba"), (Pieces{"a", "bb", "a"}));
  EXPECT_EQ(split("b", "xyz"), Pieces{"xyz"});
  EXPECT_EQ(split("(?<=a)b", "abb"), (Pieces{"a", "b", "b"}));
}

TEST(SplitPattern, RefusesWhatTwoEnginesReadDifferently) {
  for (const char* pattern :
       {R"(\w+)", R"(a\b)",  R"(\v)",  R"(\h)",   R"(\K)",   R"(\1)", R"(\u0041)",  "^a",   "a$",
        "[a[b]]", "[a&&b]",  "[]a]",   R"([\S])", "(*UTF)a", "(?m)a", "(?<name>a)", "(?R)", "(?#c)a",
        "a{,3}",  "a{1,2}+", R"(\pL)", R"(\x41)", "a*",      "a|",    "(?=a)"}) {
    EXPECT_EQ(SplitPattern::compile(pattern, "p").status().code(), Code::unsupported) << pattern;
  }
  for (const char* pattern : {"", "(a", "a)", "[a", R"(\p{NoSuchThing})", R"(\x{110000})", "a{2,1}"}) {
    EXPECT_EQ(SplitPattern::compile(pattern, "p").status().code(), Code::corrupt) << pattern;
  }
  EXPECT_EQ(SplitPattern::compile(R"(a|\w)", "where").status().message(),
            R"(where: expected a pattern that Oniguruma and PCRE2 read alike, got the escape \w at byte 2)");
}

TEST(SplitPattern, RunawayBacktrackingIsAnAnswer) {
  const auto pattern = SplitPattern::compile("(?:a+)+[bc]", "p");
  ASSERT_TRUE(pattern.ok());
  Pieces pieces;
  EXPECT_EQ(pattern->split(std::string(64, 'a'), pieces).code(), Code::unsupported);
}

TEST(SplitPattern, LongRunsStayWithinLimits) {
  const auto pattern = SplitPattern::compile(kQwenPattern, "p");
  ASSERT_TRUE(pattern.ok());
  for (const char* unit : {" ", "a", "\n", "\u0301", "'", "\u3000"}) {
    std::string text;
    while (text.size() < 3'000'000) text += unit;
    Pieces pieces;
    EXPECT_TRUE(pattern->split(text + "x", pieces).ok()) << unit;
    EXPECT_LE(pieces.size(), 3u) << unit;
  }
}

TEST(SplitPattern, PiecesAreTheText) {
  Rng rng(5);
  for (const char* source : {kQwenPattern, "[a-m]+", R"(\p{L}\p{M}*|\S(?=\s))"}) {
    const auto pattern = SplitPattern::compile(source, "p");
    ASSERT_TRUE(pattern.ok()) << pattern.status().text();
    for (int i = 0; i < 3000; ++i) {
      std::string bytes(rng.below(40), '\0');
      for (char& c : bytes) c = static_cast<char>(rng.below(3) == 0 ? rng.below(256) : 32 + rng.below(96));
      const std::string text = sanitize_utf8(bytes);
      Pieces pieces;
      ASSERT_TRUE(pattern->split(text, pieces).ok());
      std::string joined;
      for (const std::string_view piece : pieces) {
        ASSERT_FALSE(piece.empty());
        ASSERT_TRUE(valid_utf8(piece));
        joined += piece;
      }
      ASSERT_EQ(joined, text);
    }
  }
}

}  // namespace
}  // namespace nibble::text

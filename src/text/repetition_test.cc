#include "text/repetition.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble::text {
namespace {

std::string times(int n, const std::string& piece) {
  std::string text;
  for (int i = 0; i < n; ++i) text += piece;
  return text;
}

std::vector<std::string> hits(std::string_view text) {
  const auto found = detect_repetition(text);
  EXPECT_TRUE(found.ok());
  std::vector<std::string> names;
  for (const Detection& hit : *found) names.push_back(hit.detector);
  return names;
}

using Names = std::vector<std::string>;

TEST(Repetition, Cycles) {
  const Names cycle = {"repetition.cycle"};
  EXPECT_EQ(hits(times(5, "ok ")), cycle);
  EXPECT_EQ(hits(times(4, "I see. ")), cycle);
  EXPECT_EQ(hits(times(3, "the cat sat ")), cycle);
  EXPECT_EQ(hits("Ok, OK ok. Ok! oK"), cycle);
  EXPECT_EQ(hits(times(3, "one two three four five six seven eight ")), cycle);

  for (const std::string& good :
       {std::string("Very, very, very good."), std::string("Ha ha ha!"), times(4, "ok "), times(3, "I see. "),
        times(2, "the cat sat "), times(3, "one two three four five six seven eight nine "), std::string()}) {
    EXPECT_EQ(hits(good), Names()) << good;
  }
}

TEST(Repetition, SaysWhere) {
  const auto found = detect_repetition("Well: the cat sat, The cat sat. the cat sat!");
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().begin, 6u);
  EXPECT_EQ(found->front().snippet, "the cat sat, The cat sat. the cat sat");
}

// Blocks of nine words and more are no cycle, but their grams come back.
TEST(Repetition, FewGrams) {
  std::string block;
  for (int i = 0; i < 20; ++i) block += "w" + std::to_string(i) + " ";
  EXPECT_EQ(hits(times(2, block)), Names{"repetition.grams"});  // 20 of 37 are distinct: .54
  EXPECT_EQ(hits(times(2, block).substr(3)), Names());          // 39 words
  std::string other;
  for (int i = 0; i < 40; ++i) other += "w" + std::to_string(i) + " ";
  EXPECT_EQ(hits(other), Names());
}

TEST(Repetition, Characters) {
  EXPECT_EQ(hits("so " + std::string(12, 'o')), Names{"repetition.character"});
  EXPECT_EQ(hits("so " + std::string(11, 'o')), Names());
  EXPECT_EQ(hits(times(12, "ನ")), Names{"repetition.character"});
  EXPECT_EQ(hits("a" + std::string(40, ' ') + "b"), Names());
  const auto found = detect_repetition("a ............, b");
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().snippet, "............");
}

TEST(Repetition, OtherBytes) {
  EXPECT_EQ(detect_repetition("\xff").status().code(), Code::invalid_argument);
}

TEST(Repetition, Stuck) {
  EXPECT_TRUE(is_stuck("It is Paris.", "it is PARIS", "And of Spain?", "What is the capital of France?"));
  EXPECT_FALSE(is_stuck("It is Madrid.", "It is Paris.", "And of Spain?", "What is the capital of France?"));
  EXPECT_FALSE(is_stuck("It is Paris.", "It is Paris.", "Which city?", "which city"));
  EXPECT_FALSE(is_stuck("", "", "a", "b"));
  EXPECT_FALSE(is_stuck("It is", "It", "a", "b"));
}

}  // namespace
}  // namespace nibble::text

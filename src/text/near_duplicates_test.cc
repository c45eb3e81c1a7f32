#include "text/near_duplicates.h"

#include <gtest/gtest.h>

#include <string>

#include "base/rng.h"

namespace nibble::text {
namespace {

std::string sentence(Rng& rng, int words) {
  std::string text;
  for (int i = 0; i < words; ++i) text += "word" + std::to_string(rng.below(5000)) + " ";
  return text;
}

TEST(NearDuplicates, TriplesIgnoreCaseAndPunctuation) {
  EXPECT_EQ(word_triples("What is the time?"), word_triples("what, is THE time"));
  EXPECT_EQ(word_triples("a b c d").size(), 2U);
  EXPECT_EQ(word_triples("Hello.").size(), 1U);
  EXPECT_TRUE(word_triples("…").empty());
  EXPECT_NE(word_triples("hello"), word_triples("hello there"));
}

TEST(NearDuplicates, SimilarityIsJaccards) {
  EXPECT_DOUBLE_EQ(similarity({1, 2, 3}, {2, 3, 4}), 0.5);
  EXPECT_DOUBLE_EQ(similarity({}, {}), 1);
  EXPECT_DOUBLE_EQ(similarity({1}, {}), 0);
}

// Against every pair compared: with random texts, some of them with a few words changed.
TEST(NearDuplicates, FindsWhatComparingAllFinds) {
  Rng rng(3);
  std::vector<std::string> texts;
  for (int i = 0; i < 150; ++i) texts.push_back(sentence(rng, 40));
  for (int i = 0; i < 150; ++i) {
    std::string text = texts[static_cast<size_t>(i)];
    for (uint32_t k = rng.below(4); k > 0; --k) text[rng.below(static_cast<uint32_t>(text.size() - 1))] = 'x';
    texts.push_back(text);
  }
  NearDuplicates near(0.8);
  int found = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    std::optional<size_t> expected;
    for (size_t j = 0; j < i && !expected; ++j) {
      if (similarity(word_triples(texts[i]), word_triples(texts[j])) >= 0.8) expected = j;
    }
    EXPECT_EQ(near.find(texts[i]), expected) << i;
    EXPECT_EQ(near.add(texts[i]), i);
    found += expected ? 1 : 0;
  }
  EXPECT_GT(found, 40);
  EXPECT_LT(found, 150);
}

}  // namespace
}  // namespace nibble::text

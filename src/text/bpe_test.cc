#include "text/bpe.h"

#include <gtest/gtest.h>

#include <ctime>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "base/rng.h"

namespace nibble::text {
namespace {

using Ids = std::vector<int32_t>;

std::array<int32_t, 256> bytes_as_ids() {
  std::array<int32_t, 256> ids;
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

// Merges kept in a table as well, for the definition of BPE read word by word.
struct Rules {
  Bpe bpe{bytes_as_ids()};
  std::map<std::pair<int32_t, int32_t>, std::pair<size_t, int32_t>> table;  // pair -> rank, result

  bool add(int32_t left, int32_t right, int32_t result) {
    table.try_emplace({left, right}, table.size(), result);
    return bpe.add_merge(left, right, result);
  }

  Ids encode(std::string_view word) const {
    Bpe::Scratch scratch;
    Ids ids;
    bpe.encode(word, scratch, ids);
    return ids;
  }

  Ids by_definition(std::string_view word) const {
    Ids ids;
    for (const char byte : word) ids.push_back(static_cast<uint8_t>(byte));
    for (;;) {
      auto best = table.end();
      size_t at = 0;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto found = table.find({ids[i], ids[i + 1]});
        if (found == table.end() || (best != table.end() && found->second.first >= best->second.first)) continue;
        best = found;
        at = i;
      }
      if (best == table.end()) return ids;
      ids[at] = best->second.second;
      ids.erase(ids.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
  }
};

TEST(Bpe, MergesByRankThenFromTheLeft) {
  Rules rules;
  rules.add('b', 'c', 300);
  rules.add('a', 'b', 301);
  rules.add('a', 'a', 302);
  EXPECT_EQ(rules.encode(""), Ids{});
  EXPECT_EQ(rules.encode("x"), Ids{'x'});
  EXPECT_EQ(rules.encode("abc"), (Ids{'a', 300}));
  EXPECT_EQ(rules.encode("ab"), Ids{301});
  EXPECT_EQ(rules.encode("aaa"), (Ids{302, 'a'}));
  EXPECT_FALSE(rules.bpe.add_merge('a', 'b', 303));
}

TEST(Bpe, AgreesWithItsDefinition) {
  Rng rng(11);
  for (int set = 0; set < 60; ++set) {
    // Tokens are strings over three letters, so that distinct merges often make the same token.
    Rules rules;
    std::map<std::string, int32_t> tokens = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}};
    std::vector<std::string> names = {"a", "b", "c"};
    for (int i = 0; i < 40; ++i) {
      const std::string left = names[rng.below(static_cast<uint32_t>(names.size()))];
      const std::string right = names[rng.below(static_cast<uint32_t>(names.size()))];
      if (left.size() + right.size() > 8) continue;
      const auto [token, added] = tokens.try_emplace(left + right, 256 + static_cast<int32_t>(tokens.size()));
      if (added) names.push_back(token->first);
      rules.add(tokens[left], tokens[right], token->second);
    }
    for (int i = 0; i < 200; ++i) {
      std::string word(rng.below(24), 'a');
      for (char& c : word) c = static_cast<char>('a' + rng.below(3));
      ASSERT_EQ(rules.encode(word), rules.by_definition(word)) << word;
    }
  }
}

TEST(Bpe, AWordIsTakenAsItIs) {
  Rules rules;
  rules.add('a', 'b', 300);
  rules.bpe.add_word("abc", 400);
  EXPECT_EQ(rules.encode("abc"), Ids{400});
  EXPECT_EQ(rules.encode("abcd"), (Ids{300, 'c', 'd'}));
}

TEST(Bpe, LongWordsDoNotTakeQuadraticTime) {
  Rules rules;
  rules.add('a', 'a', 300);
  rules.add(300, 300, 301);
  rules.add(301, 301, 302);
  const auto seconds = [&](size_t n) {
    const std::string word(n, 'a');
    const std::clock_t start = std::clock();
    EXPECT_EQ(rules.encode(word).size(), n / 8);
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  };
  const double base = seconds(80'000);
  // n log n makes this about 4.6 times, n^2 sixteen times; the summand forgives a coarse clock.
  EXPECT_LT(seconds(320'000), 11 * base + 0.05);
}

}  // namespace
}  // namespace nibble::text

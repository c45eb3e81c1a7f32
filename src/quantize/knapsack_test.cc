#include "quantize/knapsack.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/file.h"
#include "base/rng.h"
#include "io/json.h"

namespace nibble::quantize {
namespace {

using Groups = std::vector<std::vector<KnapsackOption>>;

std::string text(const std::vector<int>& choice) {
  std::string digits;
  for (const int option : choice) digits += std::to_string(option);
  return digits;
}

Groups g6() {
  const int64_t sizes[] = {48, 24, 16, 12, 8, 64};
  const double scores[][2] = {{90, 12}, {70, 9}, {40, 3}, {36, 5}, {30, 2}, {100, 20}};
  Groups groups;
  for (size_t g = 0; g < 6; ++g) {
    const int64_t n = sizes[g];
    groups.push_back({{n * 9, scores[g][0]}, {n * 16, scores[g][1]}, {n * 32, 0}});
  }
  return groups;
}

TEST(Knapsack, VectorG6) {
  struct Solution {
    double bits, score;
    int64_t cost;
    const char* choice;
  };
  const Solution solutions[] = {
      {4.5, 366, 1548, "000000"}, {5.0, 301, 1716, "001010"}, {5.5, 240, 1884, "011010"}, {6.0, 209, 1968, "011110"},
      {6.5, 162, 2220, "111010"}, {7.0, 131, 2304, "111110"}, {8.0, 51, 2752, "111111"},
  };
  for (const Solution& solution : solutions) {
    const Result<KnapsackChoice> best = knapsack(g6(), static_cast<int64_t>(solution.bits * 172 * 2));
    ASSERT_TRUE(best.ok());
    EXPECT_EQ(best->score, solution.score) << solution.bits;
    EXPECT_EQ(best->cost, solution.cost) << solution.bits;
    EXPECT_EQ(text(best->choice), solution.choice) << solution.bits;
  }
}

TEST(Knapsack, TooSmallABudgetNamesTheSmallest) {
  const Result<KnapsackChoice> none = knapsack(g6(), 1547);
  EXPECT_EQ(none.status().text(),
            "invalid argument: budget: expected at least 1548, the cost of the cheapest formats, got 1547");
  EXPECT_TRUE(knapsack(g6(), 1548).ok());
}

TEST(Knapsack, NoGroupsAndOneOption) {
  EXPECT_EQ(knapsack(Groups{}, 0)->choice.size(), 0u);
  const Result<KnapsackChoice> one = knapsack(Groups{{{3, 1.5}}, {{0, 2}}}, 3);
  EXPECT_EQ(one->cost, 3);
  EXPECT_EQ(one->score, 3.5);
  EXPECT_EQ(text(one->choice), "00");
}

TEST(Knapsack, TiesGoToTheLowerCostThenToTheSmallerChoice) {
  EXPECT_EQ(text(knapsack(Groups{{{5, 1}, {3, 1}, {4, 1}}}, 9)->choice), "1");
  EXPECT_EQ(text(knapsack(Groups{{{1, 4}, {2, 2}}, {{1, 4}, {2, 2}}, {{1, 4}, {2, 2}}}, 4)->choice), "001");
  EXPECT_EQ(text(knapsack(Groups{{{1, 1}, {1, 1}}, {{1, 1}, {1, 1}}}, 2)->choice), "00");
}

// All choices one by one, by the same rules.
KnapsackChoice brute_force(const Groups& groups, int64_t budget) {
  KnapsackChoice best;
  std::vector<int> choice(groups.size());
  bool found = false;
  while (true) {
    KnapsackChoice one;
    one.choice = choice;
    for (size_t g = 0; g < groups.size(); ++g) {
      one.cost += groups[g][static_cast<size_t>(choice[g])].cost;
      one.score += groups[g][static_cast<size_t>(choice[g])].score;
    }
    // Choices come in lexicographic order, so a later one must be better.
    const bool better = one.score < best.score || (one.score == best.score && one.cost < best.cost);
    if (one.cost <= budget && (!found || better)) {
      best = one;
      found = true;
    }
    size_t g = groups.size();
    while (g > 0 && ++choice[g - 1] == static_cast<int>(groups[g - 1].size())) choice[--g] = 0;
    if (g == 0) return best;
  }
}

TEST(Knapsack, EqualsBruteForceAndFallsWithTheBudget) {
  Rng rng(5);
  for (int instance = 0; instance < 60; ++instance) {
    Groups groups(1 + rng.below(8));
    int64_t least = 0, most = 0;
    for (auto& group : groups) {
      group.resize(1 + rng.below(4));
      int64_t low = 1000, high = 0;
      for (KnapsackOption& option : group) {
        // Few distinct numbers, so that there are ties; scores add without rounding.
        option = {static_cast<int64_t>(rng.below(9)), static_cast<double>(rng.below(6)) / 4};
        low = std::min(low, option.cost);
        high = std::max(high, option.cost);
      }
      least += low;
      most += high;
    }
    double before = HUGE_VAL;
    for (int64_t budget = least; budget <= most; ++budget) {
      const Result<KnapsackChoice> best = knapsack(groups, budget);
      ASSERT_TRUE(best.ok());
      const KnapsackChoice expected = brute_force(groups, budget);
      EXPECT_EQ(best->score, expected.score);
      EXPECT_EQ(best->cost, expected.cost);
      EXPECT_EQ(best->choice, expected.choice);
      EXPECT_LE(best->score, before);
      before = best->score;
    }
  }
}

TEST(Knapsack, ChoicesOfModelOptsGradientSearchAtEveryBudget) {
  const Result<std::string> file = read_file(NIBBLE_SOURCE_DIR "/tests/golden/modelopt/auto_gradient/search.json");
  ASSERT_TRUE(file.ok());
  const Json golden = *parse_json(*file, "search.json");
  Groups groups;
  std::vector<std::string> names;
  for (const auto& [name, group] : golden["groups"].items()) {
    if (group["costs"].size() < 2) continue;
    names.push_back(name);
    groups.emplace_back();
    for (size_t f = 0; f < group["costs"].size(); ++f) {
      groups.back().push_back(
          {static_cast<int64_t>(group["costs"][f].get<double>()), group["scores"][f].get<double>()});
    }
  }
  EXPECT_EQ(golden["solutions"].size(), 7u);
  for (const auto& [bits, theirs] : golden["solutions"].items()) {
    const double budget = std::stod(bits) / 16 * golden["uncompressed_cost"].get<double>();
    const Result<KnapsackChoice> best = knapsack(groups, static_cast<int64_t>(budget));
    ASSERT_TRUE(best.ok());
    for (size_t g = 0; g < names.size(); ++g) {
      EXPECT_EQ(golden["groups"][names[g]]["formats"][static_cast<size_t>(best->choice[g])], theirs["choice"][names[g]])
          << bits << " " << names[g];
    }
    EXPECT_EQ(static_cast<double>(best->cost), theirs["cost"].get<double>()) << bits;
  }
}

TEST(Knapsack, MonotoneScores) {
  std::vector<KnapsackOption> group = {{32, 0.5}, {9, 3}, {16, 4}, {16, 2}, {40, 1}};
  make_monotone(group);
  const double expected[] = {0.5, 3, 3, 2, 0.5};
  for (size_t i = 0; i < group.size(); ++i) EXPECT_EQ(group[i].score, expected[i]) << i;
}

// As many groups as a 9B model has, at the costs of its shapes: it ends within a second.
TEST(Knapsack, ManyGroups) {
  Rng rng(9);
  Groups groups;
  const int64_t sizes[] = {50331648, 100663296, 25165824, 16777216, 33554432};
  int64_t weights = 0;
  for (int g = 0; g < 130; ++g) {
    const int64_t n = sizes[g % 5];
    weights += n;
    const double score = std::exp(static_cast<double>(rng.normal()));
    groups.push_back({{n / 16 * 9, score}, {n, score * .03}, {2 * n, 0}});
  }
  const int64_t budget = weights * 5 / 8;
  const Result<KnapsackChoice> best = knapsack(groups, budget);
  ASSERT_TRUE(best.ok());
  EXPECT_LE(best->cost, budget);
  EXPECT_GT(best->cost, budget - 50331648);
}

}  // namespace
}  // namespace nibble::quantize

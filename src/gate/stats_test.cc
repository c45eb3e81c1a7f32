#include "gate/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace nibble::gate {
namespace {

struct Golden {
  int64_t k, n;
  double low, high;
};

TEST(Wilson, MeetsTheGoldens) {
  for (const Golden g : {Golden{0, 25, 0, 0.133192},
                         {25, 25, 0.866808, 1},
                         {9, 10, 0.595850, 0.982124},
                         {10, 10, 0.722467, 1},
                         {5, 5, 0.565518, 1},
                         {12, 15, 0.548146, 0.929525},
                         {6, 10, 0.312674, 0.831820},
                         {27, 30, 0.743789, 0.965400},
                         {36, 40, 0.769482, 0.960420},
                         {180, 200, 0.850594, 0.934330},
                         {0, 100, 0, 0.036993}}) {
    const Interval interval = wilson_95(g.k, g.n);
    EXPECT_NEAR(interval.low, g.low, 5e-7) << g.k << "/" << g.n;
    EXPECT_NEAR(interval.high, g.high, 5e-7) << g.k << "/" << g.n;
  }
}

TEST(Wilson, TrialsNeededMeetTheGoldens) {
  struct Needed {
    double threshold;
    std::vector<int64_t> trials;  // with 0, 1, 2, 3 failures
  };
  for (const Needed& row : {Needed{0.8, {16, 25, 33, 40}}, {0.9, {35, 53, 69, 84}}, {0.95, {73, 110, 142, 173}}}) {
    for (size_t failures = 0; failures < row.trials.size(); ++failures) {
      EXPECT_EQ(trials_needed(row.threshold, static_cast<int64_t>(failures)), row.trials[failures])
          << row.threshold << " with " << failures;
    }
  }
}

// So many replies without a leak bound its true rate.
TEST(Wilson, NoLeakBoundsItsRate) {
  for (const auto& [rate, replies] : {std::pair{0.1, 35}, {0.05, 73}, {0.02, 189}, {0.01, 381}}) {
    EXPECT_EQ(trials_needed(1 - rate, 0), replies);
    EXPECT_LE(wilson_95(0, replies).high, rate);
    EXPECT_GT(wilson_95(0, replies - 1).high, rate);
  }
}

TEST(Wilson, WithoutATrialNothingIsKnown) {
  EXPECT_EQ(wilson_95(0, 0).low, 0);
  EXPECT_EQ(wilson_95(0, 0).high, 1);
}

// A mean of n equal counts has the interval of the normal approximation, about.
TEST(Bootstrap, MeetsTheNormalInterval) {
  Rng rng(5);
  std::vector<double> values;
  std::vector<int64_t> counts;
  double sum = 0, squares = 0;
  constexpr int kGroups = 400;
  for (int i = 0; i < kGroups; ++i) {
    const double x = 3 + 2 * static_cast<double>(rng.normal());
    values.push_back(10 * x);
    counts.push_back(10);
    sum += x;
    squares += x * x;
  }
  const double mean = sum / kGroups, error = std::sqrt((squares / kGroups - mean * mean) / kGroups);
  const Interval interval = ratio_bootstrap_95(values, counts);
  EXPECT_NEAR(interval.low, mean - 1.96 * error, 0.1 * error);
  EXPECT_NEAR(interval.high, mean + 1.96 * error, 0.1 * error);
  const Interval again = ratio_bootstrap_95(values, counts);
  EXPECT_EQ(interval.low, again.low);
  EXPECT_EQ(interval.high, again.high);
}

TEST(Bootstrap, WeighsGroupsByTheirCounts) {
  // Every group has the same ratio, so no draw has another.
  const Interval same = ratio_bootstrap_95(std::vector<double>{1, 10, 100}, std::vector<int64_t>{1, 10, 100});
  EXPECT_DOUBLE_EQ(same.low, 1);
  EXPECT_DOUBLE_EQ(same.high, 1);
  const Interval one = ratio_bootstrap_95(std::vector<double>{-3}, std::vector<int64_t>{2});
  EXPECT_DOUBLE_EQ(one.low, -1.5);
  EXPECT_DOUBLE_EQ(one.high, -1.5);
  // Two groups of 1 and 0: all ones or all zeros are each a quarter of the draws.
  const Interval wide = ratio_bootstrap_95(std::vector<double>{0, 5}, std::vector<int64_t>{5, 5});
  EXPECT_EQ(wide.low, 0);
  EXPECT_EQ(wide.high, 1);
}

// The bootstrap of a median can be counted out: a draw of n values has a median of at most the k-th where at least half
// of them are among the first k.
TEST(MedianBootstrap, MeetsTheBinomial) {
  constexpr int n = 31;
  std::vector<std::vector<double>> groups;
  for (int i = 0; i < n; ++i) groups.push_back({static_cast<double>((i * 7) % n)});
  const auto at_most = [](int k) {  // P(median <= k-th), k from 1
    double sum = 0;
    for (int hits = (n + 1) / 2; hits <= n; ++hits) {
      const double p = static_cast<double>(k) / n;
      sum += k == n ? hits == n
                    : std::exp(std::lgamma(n + 1) - std::lgamma(hits + 1) - std::lgamma(n - hits + 1) +
                               hits * std::log(p) + (n - hits) * std::log(1 - p));
    }
    return sum;
  };
  int low = 1, high = 1;
  while (at_most(low) < 0.025) ++low;
  while (at_most(high) < 0.975) ++high;
  const Interval interval = median_bootstrap_95(groups);
  EXPECT_NEAR(interval.low, low - 1, 1);  // the values are 0 to 30
  EXPECT_NEAR(interval.high, high - 1, 1);
  const Interval again = median_bootstrap_95(groups);
  EXPECT_EQ(interval.low, again.low);
  EXPECT_EQ(interval.high, again.high);
}

TEST(MedianBootstrap, IsWiderForGroups) {
  std::vector<std::vector<double>> single, grouped(6);
  Rng rng(3);
  for (int i = 0; i < 60; ++i) {
    const double x = i / 10 + 0.01 * static_cast<double>(rng.uniform());
    single.push_back({x});
    grouped[static_cast<size_t>(i / 10)].push_back(x);
  }
  const Interval narrow = median_bootstrap_95(single), wide = median_bootstrap_95(grouped);
  EXPECT_GT(wide.high - wide.low, narrow.high - narrow.low);
}

TEST(MedianRatioBootstrap, HoldsTheRatio) {
  const Interval exact = median_ratio_bootstrap_95(std::vector<double>{6, 6}, std::vector<double>{4});
  EXPECT_DOUBLE_EQ(exact.low, 1.5);
  EXPECT_DOUBLE_EQ(exact.high, 1.5);
  const Interval wide = median_ratio_bootstrap_95(std::vector<double>{8, 10, 12}, std::vector<double>{4, 5, 6});
  EXPECT_LE(wide.low, 8.0 / 5);
  EXPECT_GE(wide.high, 12.0 / 5);
}

TEST(Percentile, IsTheNearestRank) {
  std::vector<double> values;
  for (int i = 1; i <= 20; ++i) values.push_back(i);
  EXPECT_EQ(sorted_percentile(values, 50), 10);
  EXPECT_EQ(sorted_percentile(values, 95), 19);
  EXPECT_EQ(sorted_percentile(values, 99), 20);
  EXPECT_EQ(sorted_percentile(std::vector<double>{7}, 1), 7);
}

TEST(McNemar, MeetsTheGoldens) {
  struct Pairs {
    int64_t b, c;
    double p;
  };
  for (const Pairs g : {Pairs{0, 5, 0.0625},
                        {0, 6, 0.03125},
                        {1, 8, 0.0390625},
                        {2, 10, 0.03857421875},
                        {3, 14, 0.012725830078125},
                        {5, 5, 1},
                        {0, 1, 1},
                        {0, 0, 1}}) {
    EXPECT_NEAR(mcnemar_exact(g.b, g.c), g.p, 1e-12) << g.b << " " << g.c;
    EXPECT_EQ(mcnemar_exact(g.b, g.c), mcnemar_exact(g.c, g.b));
  }
  EXPECT_GT(mcnemar_exact(2000, 1990), 0.8);
}

TEST(Holm, StepsDown) {
  const std::vector<double> corrected = holm({0.01, 0.04, 0.03, 0.005});
  const std::vector<double> expected = {0.03, 0.06, 0.06, 0.02};
  ASSERT_EQ(corrected.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(corrected[i], expected[i], 1e-15) << i;
  EXPECT_EQ(holm({0.9, 0.8}), (std::vector<double>{1, 1}));
  EXPECT_TRUE(holm({}).empty());
}

}  // namespace
}  // namespace nibble::gate

// Formats under a budget: one option per group, the smallest sum of scores, exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace nibble::quantize {

struct KnapsackOption {
  int64_t cost = 0;  // bytes, bits, nanoseconds; >= 0
  double score = 0;  // lower is better
};

struct KnapsackChoice {
  double score = 0;
  int64_t cost = 0;
  std::vector<int> choice;  // an index per group
};

/// Chooses one option of every group so that the sum of costs is at most `budget` and the sum of scores smallest; among
/// equal scores the lower cost, then the lexicographically smaller choice. Scores are added in the order of the groups.
/// Groups are not empty; scores are finite. `invalid_argument` where even the cheapest options exceed the budget; the
/// message names what they cost.
/// The Pareto front of (cost, score) has at most budget / gcd(costs) + 1 states, and one is kept per group and state.
Result<KnapsackChoice> knapsack(std::span<const std::vector<KnapsackOption>> groups, int64_t budget);

/// score = min(score, scores of all cheaper options): a dearer format never counts as worse.
void make_monotone(std::vector<KnapsackOption>& group);

}  // namespace nibble::quantize

#include "quantize/knapsack.h"

#include <algorithm>
#include <numeric>

namespace nibble::quantize {
namespace {

// The states that no other one beats, after some groups: costs ascend, scores fall.
struct State {
  int64_t cost = 0;
  double score = 0;
  int32_t parent = 0;  // in the front before the last group
  int32_t option = 0;
};
using Front = std::vector<State>;

// Of two states after the same groups, whose choice is lexicographically smaller; looked at in ties only.
std::vector<int> choice_of(const std::vector<Front>& fronts, State state) {
  std::vector<int> choice;
  for (size_t level = fronts.size(); level-- > 0;) {
    choice.push_back(state.option);
    state = fronts[level][static_cast<size_t>(state.parent)];
  }
  std::reverse(choice.begin(), choice.end());
  return choice;
}

}  // namespace

Result<KnapsackChoice> knapsack(std::span<const std::vector<KnapsackOption>> groups, int64_t budget) {
  int64_t cheapest_rest = 0;
  for (const auto& group : groups) {
    NIBBLE_CHECK(!group.empty());
    cheapest_rest += std::min_element(group.begin(), group.end(), [](const auto& a, const auto& b) {
                       return a.cost < b.cost;
                     })->cost;
  }
  if (cheapest_rest > budget) {
    return invalid_argument("budget: expected at least {}, the cost of the cheapest formats, got {}", cheapest_rest,
                            budget);
  }

  std::vector<Front> fronts = {{State{}}};
  for (const auto& group : groups) {
    int64_t cheapest = group[0].cost;
    for (const KnapsackOption& option : group) cheapest = std::min(cheapest, option.cost);
    cheapest_rest -= cheapest;
    Front next;
    const Front& front = fronts.back();
    next.reserve(front.size() * group.size());
    for (size_t s = 0; s < front.size(); ++s) {
      for (size_t f = 0; f < group.size(); ++f) {
        const int64_t cost = front[s].cost + group[f].cost;
        if (cost + cheapest_rest > budget) continue;
        next.push_back({cost, front[s].score + group[f].score, static_cast<int32_t>(s), static_cast<int32_t>(f)});
      }
    }
    std::sort(next.begin(), next.end(), [&](const State& a, const State& b) {
      if (a.cost != b.cost) return a.cost < b.cost;
      if (a.score != b.score) return a.score < b.score;
      return choice_of(fronts, a) < choice_of(fronts, b);
    });
    Front kept;
    for (const State& state : next) {
      if (kept.empty() || state.score < kept.back().score) kept.push_back(state);
    }
    NIBBLE_CHECK(!kept.empty());
    fronts.push_back(std::move(kept));
  }

  const State best = fronts.back().back();
  fronts.pop_back();
  return KnapsackChoice{best.score, best.cost, groups.empty() ? std::vector<int>() : choice_of(fronts, best)};
}

void make_monotone(std::vector<KnapsackOption>& group) {
  std::vector<size_t> order(group.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return group[a].cost < group[b].cost; });
  // Options of equal cost do not judge each other.
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    while (end < order.size() && group[order[end]].cost == group[order[begin]].cost) ++end;
    for (size_t i = begin; i < end; ++i) {
      for (size_t j = 0; j < begin; ++j) {
        group[order[i]].score = std::min(group[order[i]].score, group[order[j]].score);
      }
    }
    begin = end;
  }
}

}  // namespace nibble::quantize

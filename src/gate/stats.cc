#include "gate/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"

namespace nibble::gate {

Interval wilson_95(int64_t k, int64_t n) {
  NIBBLE_CHECK(0 <= k && k <= n);
  if (n == 0) return {0, 1};
  constexpr double z = 1.959963984540054, z2 = z * z;
  const auto hits = static_cast<double>(k), trials = static_cast<double>(n);
  const double centre = (hits + z2 / 2) / (trials + z2);
  const double half = z / (trials + z2) * std::sqrt(hits * (trials - hits) / trials + z2 / 4);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

int64_t trials_needed(double threshold, int64_t failures) {
  const auto proves = [&](int64_t n) { return wilson_95(n - failures, n).low >= threshold; };
  int64_t high = failures + 1;
  while (!proves(high)) high *= 2;
  int64_t low = failures;  // proves nothing
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (proves(middle) ? high : low) = middle;
  }
  return high;
}

Interval ratio_bootstrap_95(std::span<const double> values, std::span<const int64_t> counts) {
  NIBBLE_CHECK(!values.empty() && values.size() == counts.size());
  constexpr int kResamples = 10'000, kTail = kResamples / 40;
  Rng rng(20240607);
  std::vector<double> ratios(kResamples);
  for (double& ratio : ratios) {
    double sum = 0;
    int64_t count = 0;
    for (size_t draw = 0; draw < values.size(); ++draw) {
      const size_t group = rng.below(static_cast<uint32_t>(values.size()));
      sum += values[group];
      count += counts[group];
    }
    ratio = sum / static_cast<double>(count);
  }
  std::sort(ratios.begin(), ratios.end());
  return {ratios[kTail - 1], ratios[kResamples - kTail]};
}

namespace {

constexpr int kMedianDraws = 2'000;
constexpr uint64_t kMedianSeed = 20240608;

// Nearest rank; the order of the values is lost.
double median_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void draw(std::span<const double> from, Rng& rng, std::vector<double>& drawn) {
  drawn.clear();
  for (size_t i = 0; i < from.size(); ++i) drawn.push_back(from[rng.below(static_cast<uint32_t>(from.size()))]);
}

// All but 2.5 % at either end.
Interval middle_95(std::vector<double> draws) {
  std::sort(draws.begin(), draws.end());
  const size_t tail = draws.size() / 40;
  return {draws[tail - 1], draws[draws.size() - tail]};
}

}  // namespace

Interval median_bootstrap_95(std::span<const std::vector<double>> groups) {
  NIBBLE_CHECK(std::any_of(groups.begin(), groups.end(), [](const auto& group) { return !group.empty(); }));
  Rng rng(kMedianSeed);
  std::vector<double> medians, drawn;
  while (medians.size() < kMedianDraws) {
    drawn.clear();
    for (size_t i = 0; i < groups.size(); ++i) {
      const std::vector<double>& group = groups[rng.below(static_cast<uint32_t>(groups.size()))];
      drawn.insert(drawn.end(), group.begin(), group.end());
    }
    if (!drawn.empty()) medians.push_back(median_of(drawn));
  }
  return middle_95(std::move(medians));
}

Interval median_ratio_bootstrap_95(std::span<const double> above, std::span<const double> below) {
  NIBBLE_CHECK(!above.empty() && !below.empty());
  Rng rng(kMedianSeed);
  std::vector<double> ratios, drawn;
  for (int i = 0; i < kMedianDraws; ++i) {
    draw(above, rng, drawn);
    const double top = median_of(drawn);
    draw(below, rng, drawn);
    ratios.push_back(top / median_of(drawn));
  }
  return middle_95(std::move(ratios));
}

double median(std::vector<double> values) {
  NIBBLE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double sorted_percentile(std::span<const double> sorted, double p) {
  NIBBLE_CHECK(!sorted.empty() && p > 0 && p <= 100);
  const auto rank = static_cast<size_t>(std::ceil(p / 100 * static_cast<double>(sorted.size()) - 1e-9));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

double mcnemar_exact(int64_t b, int64_t c) {
  NIBBLE_CHECK(b >= 0 && c >= 0);
  const int64_t n = b + c, tail = std::min(b, c);
  // C(n, i) / 2^n by logarithms: n may be thousands.
  double sum = 0;
  for (int64_t i = 0; i <= tail; ++i) {
    const auto x = static_cast<double>(i), all = static_cast<double>(n);
    sum += std::exp(std::lgamma(all + 1) - std::lgamma(x + 1) - std::lgamma(all - x + 1) - all * std::log(2.0));
  }
  return std::min(1.0, 2 * sum);
}

std::vector<double> holm(std::vector<double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(p.size() - rank) * p[order[rank]]));
    p[order[rank]] = largest;
  }
  return p;
}

}  // namespace nibble::gate

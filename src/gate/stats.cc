#include "gate/stats.h"

#include <algorithm>
#include <cmath>

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

double median(std::vector<double> values) {
  NIBBLE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace nibble::gate

#include "gate/stats.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

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

double median(std::vector<double> values) {
  NIBBLE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace nibble::gate

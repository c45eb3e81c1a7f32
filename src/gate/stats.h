// The statistics of a pass rate, and of repeated timings.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble::gate {

struct Interval {
  double low, high;
};

/// Wilson's score interval for k successes in n independent trials at 95 % (E. B. Wilson, "Probable inference, the law
/// of succession, and statistical inference", JASA 22, 1927), clipped to [0, 1]:
///   centre (k + z²/2) / (n + z²),  half width z / (n + z²) · sqrt(k(n - k)/n + z²/4),  z = 1.959963984540054
/// 0 <= k <= n. Without a trial nothing is known: [0, 1].
Interval wilson_95(int64_t k, int64_t n);

/// The middle value of at least one; of an even number the upper of the two.
double median(std::vector<double> values);

}  // namespace nibble::gate

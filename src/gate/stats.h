// The statistics of a pass rate, of a mean over conversations, and of repeated timings.
#pragma once

#include <cstdint>
#include <span>
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

/// The fewest trials of which so many fail and whose Wilson interval still lies at or above the threshold: what proves
/// a rate, and, with the threshold 1 - r and no failures, what bounds the true rate of a leak that never occurred by r.
/// 0 < threshold < 1, failures >= 0.
int64_t trials_needed(double threshold, int64_t failures);

/// The 95 % interval of sum(values) / sum(counts) over groups drawn as these were, by the bootstrap: 10,000 times as
/// many groups as there are are drawn from them with replacement, and the interval holds all but 2.5 % of the ratios at
/// either end (B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979; percentile form).
/// For values that are differences of two models over the same conversations it is the paired bootstrap. The draws are
/// those of Philox with a fixed seed. At least one group; counts > 0.
Interval ratio_bootstrap_95(std::span<const double> values, std::span<const int64_t> counts);

/// The 95 % interval of the median (nearest rank) of all values, by the bootstrap: 2,000 times as many groups as there
/// are are drawn with replacement, whole. Values that belong together (the tokens of one reply) are one group, all
/// others groups of one. At least one value.
Interval median_bootstrap_95(std::span<const std::vector<double>> groups);

/// The same for median(above) / median(below), both drawn independently. At least one value each; those of `below` > 0.
Interval median_ratio_bootstrap_95(std::span<const double> above, std::span<const double> below);

/// The middle value of at least one; of an even number the upper of the two.
double median(std::vector<double> values);

/// Nearest rank: the ceil(p/100 · n)-th of at least one value in ascending order, 0 < p <= 100.
double sorted_percentile(std::span<const double> sorted, double p);

/// McNemar's exact two-sided test: b and c pairs that differ one way and the other,
///   p = min(1, 2 · sum of C(b+c, i) over i <= min(b, c) / 2^(b+c))
/// (Q. McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12, 1947).
double mcnemar_exact(int64_t b, int64_t c);

/// Holm's step-down correction of p-values (S. Holm, "A simple sequentially rejective multiple test procedure", Scand.
/// J. Statist. 6, 1979): each one, in the order given, at least as large as before and at most 1.
std::vector<double> holm(std::vector<double> p);

}  // namespace nibble::gate

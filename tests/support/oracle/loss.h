// Softmax comparisons as naive loops, written from ops/loss/kl.h.
#pragma once

#include <cmath>
#include <vector>

namespace nibble::oracle {

/// log softmax of one row.
inline std::vector<double> log_softmax(const float* x, size_t n) {
  long double largest = x[0], total = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max<long double>(largest, x[i]);
  for (size_t i = 0; i < n; ++i) total += std::exp(static_cast<long double>(x[i]) - largest);
  std::vector<double> y(n);
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<double>(x[i] - largest - std::log(total));
  return y;
}

inline double kl(const float* p, const float* q, size_t n) {
  const std::vector<double> a = log_softmax(p, n), b = log_softmax(q, n);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(a[i]) * (a[i] - b[i]);
  return sum;
}

}  // namespace nibble::oracle

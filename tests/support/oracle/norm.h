// The norms as naive loops over rows of n, written from ops/norm/*.h.
#pragma once

#include <cmath>
#include <vector>

namespace nibble::oracle {

template <class F>
F logistic(F z) {
  return F(1) / (F(1) + std::exp(-z));
}

template <class F>
std::vector<F> rms_norm(const std::vector<F>& x, const std::vector<F>& w, double eps, bool one_plus) {
  const size_t n = w.size();
  std::vector<F> y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    F squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[row + i] * x[row + i];
    const F r = F(1) / std::sqrt(squares / F(n) + F(eps));
    for (size_t i = 0; i < n; ++i) y[row + i] = x[row + i] * r * (one_plus ? F(1) + w[i] : w[i]);
  }
  return y;
}

template <class F>
std::vector<F> l2_norm(const std::vector<F>& x, size_t n, double eps) {
  std::vector<F> y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    F squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[row + i] * x[row + i];
    for (size_t i = 0; i < n; ++i) y[row + i] = x[row + i] / std::sqrt(squares + F(eps));
  }
  return y;
}

template <class F>
std::vector<F> gated_rms_norm(const std::vector<F>& x, const std::vector<F>& z, const std::vector<F>& w, double eps,
                              bool silu) {
  std::vector<F> y = rms_norm(x, w, eps, false);
  for (size_t i = 0; i < y.size(); ++i) y[i] *= (silu ? z[i] : F(1)) * logistic(z[i]);
  return y;
}

}  // namespace nibble::oracle

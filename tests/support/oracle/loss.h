// Softmax comparisons and the loss of a head as naive loops, written from ops/loss/*.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
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

/// log softmax(x / tau) of one row of n.
template <class F>
std::vector<F> log_softmax(const F* x, size_t n, double tau) {
  double largest = -INFINITY;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::real(x[i]));
  F total = 0;
  for (size_t i = 0; i < n; ++i) total += std::exp((x[i] - F(largest)) / F(tau));
  std::vector<F> y(n);
  for (size_t i = 0; i < n; ++i) y[i] = (x[i] - F(largest)) / F(tau) - std::log(total);
  return y;
}

struct HeadRow {
  size_t row;
  int label;
  double ce_weight, kl_weight;
};

template <class F>
struct HeadSums {
  F loss = 0;
  double ce = 0, kl = 0, teacher_entropy = 0;  // unweighted
};

/// z and teacher [T,V] are logits.
template <class F>
HeadSums<F> head_loss(const std::vector<HeadRow>& rows, const std::vector<F>& z, const std::vector<double>& teacher,
                      size_t n, double tau) {
  HeadSums<F> sums;
  for (const HeadRow& r : rows) {
    if (r.label >= 0) {
      const F ce = -log_softmax(&z[r.row * n], n, 1)[static_cast<size_t>(r.label)];
      sums.loss += F(r.ce_weight) * ce;
      sums.ce += std::real(ce);
    }
    if (r.kl_weight == 0) continue;
    const auto p = log_softmax(&z[r.row * n], n, tau);
    const auto wanted = log_softmax(&teacher[r.row * n], n, tau);
    F kl = 0;
    for (size_t i = 0; i < n; ++i) {
      kl += F(std::exp(wanted[i])) * (F(wanted[i]) - p[i]);
      sums.teacher_entropy -= std::exp(wanted[i]) * wanted[i];
    }
    sums.loss += F(r.kl_weight * tau * tau) * kl;
    sums.kl += std::real(kl);
  }
  return sums;
}

/// dz [T,V]
inline std::vector<double> head_loss_vjp(const std::vector<HeadRow>& rows, const std::vector<double>& z,
                                         const std::vector<double>& teacher, size_t n, double tau) {
  std::vector<double> dz(z.size());
  for (const HeadRow& r : rows) {
    double* d = &dz[r.row * n];
    const auto ce = log_softmax(&z[r.row * n], n, 1), p = log_softmax(&z[r.row * n], n, tau);
    for (size_t i = 0; i < n; ++i) d[i] += r.ce_weight * std::exp(ce[i]);
    if (r.label >= 0) d[r.label] -= r.ce_weight;
    if (r.kl_weight == 0) continue;
    const auto wanted = log_softmax(&teacher[r.row * n], n, tau);
    for (size_t i = 0; i < n; ++i) d[i] += r.kl_weight * tau * (std::exp(p[i]) - std::exp(wanted[i]));
  }
  return dz;
}

}  // namespace nibble::oracle

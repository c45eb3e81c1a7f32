// The norms as naive loops over rows of n, written from ops/norm/*.h.
#pragma once

#include <cmath>
#include <vector>

namespace nibble::oracle {

template <class F>
F logistic(F z) {
  return F(1) / (F(1) + std::exp(-z));
}

/// Of silu and of the sigmoid.
inline double silu_slope(double z) {
  return logistic(z) + z * logistic(z) * logistic(-z);
}
inline double logistic_slope(double z) {
  return logistic(z) * logistic(-z);
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

struct NormVjp {
  std::vector<double> dx, dz, dw;  // dw is what is added
  std::vector<double> magnitudes;  // of the terms whose difference is dx
};

/// dx of one row for u = dy * gain; the mean over the row is a sum over `divisor`.
inline void norm_row_vjp(const double* u, const double* x, size_t n, double r, double divisor, NormVjp& vjp) {
  double dot = 0, size = 0;
  for (size_t i = 0; i < n; ++i) {
    dot += u[i] * x[i] * r;
    size += std::abs(u[i] * x[i] * r);
  }
  for (size_t i = 0; i < n; ++i) {
    vjp.dx.push_back(r * (u[i] - x[i] * r * dot / divisor));
    vjp.magnitudes.push_back(r * (std::abs(u[i]) + std::abs(x[i] * r) * size / divisor));
  }
}

inline double inverse_root(const double* x, size_t n, double divisor, double eps) {
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
  return 1 / std::sqrt(squares / divisor + eps);
}

inline NormVjp rms_norm_vjp(const std::vector<double>& dy, const std::vector<double>& x, const std::vector<double>& w,
                            double eps, bool one_plus) {
  const size_t n = w.size();
  const auto size = static_cast<double>(n);
  NormVjp vjp;
  vjp.dw.resize(n);
  for (size_t row = 0; row < x.size(); row += n) {
    const double r = inverse_root(&x[row], n, size, eps);
    std::vector<double> u(n);
    for (size_t i = 0; i < n; ++i) {
      u[i] = dy[row + i] * (one_plus ? 1 + w[i] : w[i]);
      vjp.dw[i] += dy[row + i] * x[row + i] * r;
    }
    norm_row_vjp(u.data(), &x[row], n, r, size, vjp);
  }
  return vjp;
}

inline NormVjp l2_norm_vjp(const std::vector<double>& dy, const std::vector<double>& x, size_t n, double eps) {
  NormVjp vjp;
  for (size_t row = 0; row < x.size(); row += n) {
    norm_row_vjp(&dy[row], &x[row], n, inverse_root(&x[row], n, 1, eps), 1, vjp);
  }
  return vjp;
}

inline NormVjp gated_rms_norm_vjp(const std::vector<double>& dy, const std::vector<double>& x,
                                  const std::vector<double>& z, const std::vector<double>& w, double eps, bool silu) {
  std::vector<double> gated(dy), slopes(dy);
  for (size_t i = 0; i < dy.size(); ++i) {
    gated[i] *= (silu ? z[i] : 1) * logistic(z[i]);
    slopes[i] *= silu ? silu_slope(z[i]) : logistic_slope(z[i]);
  }
  NormVjp vjp = rms_norm_vjp(gated, x, w, eps, false);
  vjp.dz = rms_norm(x, w, eps, false);
  for (size_t i = 0; i < dy.size(); ++i) vjp.dz[i] *= slopes[i];
  return vjp;
}

}  // namespace nibble::oracle

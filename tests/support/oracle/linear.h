// The matrix product as a naive loop, written from ops/linear/linear.h, with what its error bound needs.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

namespace nibble::oracle {

template <class F>
struct Product {
  std::vector<F> y;                // [T,out]
  std::vector<double> magnitudes;  // [T,out]: c * sum_k |x w|
};

/// c [out]: the factor of every output.
template <class F>
Product<F> linear(const std::vector<F>& x, const std::vector<F>& w, size_t in, const std::vector<double>& c) {
  const size_t tokens = x.size() / in, out = w.size() / in;
  Product<F> product;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t n = 0; n < out; ++n) {
      F sum = 0;
      double magnitude = 0;
      for (size_t k = 0; k < in; ++k) {
        sum += x[t * in + k] * w[n * in + k];
        magnitude += std::abs(std::real(x[t * in + k]) * std::real(w[n * in + k]));
      }
      product.y.push_back(F(c[n]) * sum);
      product.magnitudes.push_back(std::abs(c[n]) * magnitude);
    }
  }
  return product;
}

template <class F>
Product<F> linear(const std::vector<F>& x, const std::vector<F>& w, size_t in, double c) {
  return linear(x, w, in, std::vector<double>(w.size() / in, c));
}

inline std::vector<double> transposed(const std::vector<double>& a, size_t columns) {
  const size_t rows = columns > 0 ? a.size() / columns : 0;
  std::vector<double> b(a.size());
  for (size_t i = 0; i < a.size(); ++i) b[i % columns * rows + i / columns] = a[i];
  return b;
}

/// product += b (a x), a [r,in], b [out,r]
inline void add_low_rank(Product<double>& product, const std::vector<double>& x, const std::vector<double>& a,
                         const std::vector<double>& b, size_t in) {
  const size_t rank = a.size() / in;
  const Product<double> z = linear(x, a, in, 1), branch = linear(z.y, b, rank, 1);
  std::vector<double> absolute(b.size());
  for (size_t i = 0; i < b.size(); ++i) absolute[i] = std::abs(b[i]);
  const Product<double> bound = linear(z.magnitudes, absolute, rank, 1);
  for (size_t i = 0; i < product.y.size(); ++i) {
    product.y[i] += branch.y[i];
    product.magnitudes[i] += bound.y[i];
  }
}

struct LinearVjp {
  Product<double> dx, dw;  // dw is what is added
};

inline LinearVjp linear_vjp(const std::vector<double>& dy, const std::vector<double>& x, const std::vector<double>& w,
                            size_t in, const std::vector<double>& c) {
  const size_t tokens = x.size() / in, out = w.size() / in;
  std::vector<double> scaled = w;
  for (size_t i = 0; i < w.size(); ++i) scaled[i] *= c[i / in];
  LinearVjp vjp;
  vjp.dx = linear(dy, transposed(scaled, in), out, 1);
  if (tokens > 0) vjp.dw = linear(transposed(dy, out), transposed(x, in), tokens, 1);
  vjp.dw.y.resize(w.size());
  vjp.dw.magnitudes.resize(w.size());
  return vjp;
}

inline LinearVjp linear_vjp(const std::vector<double>& dy, const std::vector<double>& x, const std::vector<double>& w,
                            size_t in, double c) {
  return linear_vjp(dy, x, w, in, std::vector<double>(w.size() / in, c));
}

}  // namespace nibble::oracle

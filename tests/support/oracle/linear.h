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

template <class F>
Product<F> linear(const std::vector<F>& x, const std::vector<F>& w, size_t in, double c) {
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
      product.y.push_back(F(c) * sum);
      product.magnitudes.push_back(std::abs(c) * magnitude);
    }
  }
  return product;
}

struct LinearVjp {
  Product<double> dx, dw;  // dw is what is added
};

inline LinearVjp linear_vjp(const std::vector<double>& dy, const std::vector<double>& x, const std::vector<double>& w,
                            size_t in, double c) {
  const auto transposed = [](const std::vector<double>& a, size_t columns) {
    const size_t rows = columns > 0 ? a.size() / columns : 0;
    std::vector<double> b(a.size());
    for (size_t i = 0; i < a.size(); ++i) b[i % columns * rows + i / columns] = a[i];
    return b;
  };
  const size_t tokens = x.size() / in, out = w.size() / in;
  LinearVjp vjp;
  vjp.dx = linear(dy, transposed(w, in), out, c);
  if (tokens > 0) vjp.dw = linear(transposed(dy, out), transposed(x, in), tokens, 1);
  vjp.dw.y.resize(w.size());
  vjp.dw.magnitudes.resize(w.size());
  return vjp;
}

}  // namespace nibble::oracle

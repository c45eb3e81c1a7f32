// The matrix product as a naive loop, written from ops/linear/linear.h, with what its error bound needs.
#pragma once

#include <cmath>
#include <vector>

namespace nibble::oracle {

struct Product {
  std::vector<double> y;           // [T,out]
  std::vector<double> magnitudes;  // [T,out]: c * sum_k |x w|
};

inline Product linear(const std::vector<double>& x, const std::vector<double>& w, size_t in, double c) {
  const size_t tokens = x.size() / in, out = w.size() / in;
  Product product;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t n = 0; n < out; ++n) {
      double sum = 0, magnitude = 0;
      for (size_t k = 0; k < in; ++k) {
        sum += x[t * in + k] * w[n * in + k];
        magnitude += std::abs(x[t * in + k] * w[n * in + k]);
      }
      product.y.push_back(c * sum);
      product.magnitudes.push_back(std::abs(c) * magnitude);
    }
  }
  return product;
}

}  // namespace nibble::oracle

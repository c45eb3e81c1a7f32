// Attention and rope as naive loops, written from ops/attention/attention.h and ops/rope/rope.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

namespace nibble::oracle {

struct AttentionShape {
  size_t tokens, heads, kv_heads, size, past;
};

template <class F>
std::vector<F> attention(const AttentionShape& s, const std::vector<F>& q, const std::vector<F>& keys,
                         const std::vector<F>& values, double scale) {
  std::vector<F> o(q.size());
  for (size_t t = 0; t < s.tokens; ++t) {
    for (size_t h = 0; h < s.heads; ++h) {
      const size_t query = (t * s.heads + h) * s.size, kv = h / (s.heads / s.kv_heads), visible = s.past + t + 1;
      std::vector<F> p(visible);
      double largest = -INFINITY;
      for (size_t j = 0; j < visible; ++j) {
        for (size_t i = 0; i < s.size; ++i) p[j] += q[query + i] * keys[(j * s.kv_heads + kv) * s.size + i];
        p[j] *= F(scale);
        largest = std::max(largest, std::real(p[j]));
      }
      F total = 0;
      for (F& x : p) total += x = std::exp(x - F(largest));
      for (size_t j = 0; j < visible; ++j) {
        for (size_t i = 0; i < s.size; ++i) {
          o[query + i] += p[j] / total * values[(j * s.kv_heads + kv) * s.size + i];
        }
      }
    }
  }
  return o;
}

template <class F>
std::vector<F> rope(const std::vector<F>& x, size_t heads, size_t size, size_t first_position, size_t rotary_dim,
                    double theta) {
  std::vector<F> y = x;
  const size_t half = rotary_dim / 2;
  for (size_t row = 0; row < x.size() / size; ++row) {
    const double position = static_cast<double>(first_position + row / heads);
    for (size_t i = 0; i < half; ++i) {
      const double a = position * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
      const F first = x[row * size + i], second = x[row * size + half + i];
      y[row * size + i] = first * F(std::cos(a)) - second * F(std::sin(a));
      y[row * size + half + i] = second * F(std::cos(a)) + first * F(std::sin(a));
    }
  }
  return y;
}

}  // namespace nibble::oracle

// The gated delta rule and its gates, token by token, written from ops/gated_delta/*.h.
#pragma once

#include <cmath>
#include <complex>
#include <vector>

#include "tests/support/oracle/norm.h"

namespace nibble::oracle {

struct DeltaShape {
  size_t tokens, key_heads, heads, key_size, value_size;
};

template <class F>
void delta_gates(const std::vector<F>& a, const std::vector<F>& b, const std::vector<F>& a_log,
                 const std::vector<F>& dt_bias, std::vector<F>& g, std::vector<F>& beta) {
  g.resize(a.size());
  beta.resize(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t h = i % a_log.size();
    const F x = a[i] + dt_bias[h];
    g[i] = -std::exp(a_log[h]) * (std::real(x) > 20 ? x : std::log(F(1) + std::exp(x)));
    beta[i] = logistic(b[i]);
  }
}

/// S [Hv,Dk,Dv] is updated in place; the result is y [T,Hv,Dv].
template <class F>
std::vector<F> gated_delta(const DeltaShape& s, const std::vector<F>& q, const std::vector<F>& k,
                           const std::vector<F>& v, const std::vector<F>& g, const std::vector<F>& beta, double scale,
                           std::vector<F>& S) {
  std::vector<F> y(v.size());
  for (size_t t = 0; t < s.tokens; ++t) {
    for (size_t h = 0; h < s.heads; ++h) {
      const size_t key = (t * s.key_heads + h / (s.heads / s.key_heads)) * s.key_size;
      const size_t value = (t * s.heads + h) * s.value_size;
      F* state = S.data() + h * s.key_size * s.value_size;
      for (size_t i = 0; i < s.key_size * s.value_size; ++i) state[i] *= std::exp(g[t * s.heads + h]);
      for (size_t j = 0; j < s.value_size; ++j) {
        F read = 0, out = 0;
        for (size_t i = 0; i < s.key_size; ++i) read += state[i * s.value_size + j] * k[key + i];
        const F d = beta[t * s.heads + h] * (v[value + j] - read);
        for (size_t i = 0; i < s.key_size; ++i) {
          state[i * s.value_size + j] += k[key + i] * d;
          out += state[i * s.value_size + j] * q[key + i];
        }
        y[value + j] = F(scale) * out;
      }
    }
  }
  return y;
}

}  // namespace nibble::oracle

// The gradients of attention as naive loops, written from ops/attention/attention.h.
#pragma once

#include "tests/support/oracle/attention.h"

namespace nibble::oracle {

struct AttentionGradients {
  std::vector<double> dq, dk, dv;
};

/// past = 0: keys and values are those of the sequence.
inline AttentionGradients attention_vjp(const AttentionShape& s, const std::vector<double>& dy,
                                        const std::vector<double>& q, const std::vector<double>& k,
                                        const std::vector<double>& v, double scale) {
  AttentionGradients grad{std::vector<double>(q.size()), std::vector<double>(k.size()), std::vector<double>(v.size())};
  for (size_t t = 0; t < s.tokens; ++t) {
    for (size_t h = 0; h < s.heads; ++h) {
      const size_t query = (t * s.heads + h) * s.size;
      const auto key_at = [&](size_t j) { return (j * s.kv_heads + h / (s.heads / s.kv_heads)) * s.size; };
      std::vector<double> p(t + 1), dp(t + 1);
      double largest = -INFINITY, total = 0, mean = 0;
      for (size_t j = 0; j <= t; ++j) {
        for (size_t i = 0; i < s.size; ++i) p[j] += scale * q[query + i] * k[key_at(j) + i];
        for (size_t i = 0; i < s.size; ++i) dp[j] += dy[query + i] * v[key_at(j) + i];
        largest = std::max(largest, p[j]);
      }
      for (double& x : p) total += x = std::exp(x - largest);
      for (size_t j = 0; j <= t; ++j) mean += (p[j] /= total) * dp[j];
      for (size_t j = 0; j <= t; ++j) {
        const double ds = scale * p[j] * (dp[j] - mean);
        for (size_t i = 0; i < s.size; ++i) {
          grad.dq[query + i] += ds * k[key_at(j) + i];
          grad.dk[key_at(j) + i] += ds * q[query + i];
          grad.dv[key_at(j) + i] += p[j] * dy[query + i];
        }
      }
    }
  }
  return grad;
}

}  // namespace nibble::oracle

// The gradients of the delta rule and of its gates, token by token, written from ops/gated_delta/*.h.
#pragma once

#include "tests/support/oracle/gated_delta.h"

namespace nibble::oracle {

struct DeltaGradients {
  std::vector<double> dq, dk, dv, dg, dbeta, dS0;
};

inline DeltaGradients gated_delta_vjp(const DeltaShape& s, const std::vector<double>& dy, const std::vector<double>& q,
                                      const std::vector<double>& k, const std::vector<double>& v,
                                      const std::vector<double>& g, const std::vector<double>& beta, double scale,
                                      const std::vector<double>& S0, const std::vector<double>& dS_T) {
  DeltaGradients grad{std::vector<double>(q.size()), std::vector<double>(k.size()), std::vector<double>(v.size()),
                      std::vector<double>(g.size()), std::vector<double>(g.size()), dS_T};
  const size_t n = s.value_size, cells = s.key_size * n;
  for (size_t h = 0; h < s.heads; ++h) {
    const auto key_at = [&](size_t t) { return (t * s.key_heads + h / (s.heads / s.key_heads)) * s.key_size; };
    const auto value_at = [&](size_t t) { return (t * s.heads + h) * n; };
    // decayed[t] = S~, missing[t] = v - S~^T k
    std::vector<std::vector<double>> decayed, missing;
    std::vector<double> S(S0.begin() + static_cast<long>(h * cells), S0.begin() + static_cast<long>((h + 1) * cells));
    for (size_t t = 0; t < s.tokens; ++t) {
      for (double& x : S) x *= std::exp(g[t * s.heads + h]);
      decayed.push_back(S);
      missing.emplace_back(v.begin() + static_cast<long>(value_at(t)), v.begin() + static_cast<long>(value_at(t) + n));
      for (size_t i = 0; i < cells; ++i) missing[t][i % n] -= S[i] * k[key_at(t) + i / n];
      for (size_t i = 0; i < cells; ++i) S[i] += k[key_at(t) + i / n] * beta[t * s.heads + h] * missing[t][i % n];
    }
    double* L = grad.dS0.data() + h * cells;
    for (size_t t = s.tokens; t-- > 0;) {
      const size_t key = key_at(t), value = value_at(t), gate = t * s.heads + h;
      const double b = beta[gate], keep = std::exp(g[gate]);
      std::vector<double> dd(n);
      for (size_t i = 0; i < cells; ++i) {
        const double after = decayed[t][i] + k[key + i / n] * b * missing[t][i % n];
        grad.dq[key + i / n] += scale * after * dy[value + i % n];
        L[i] += scale * q[key + i / n] * dy[value + i % n];
        dd[i % n] += L[i] * k[key + i / n];
      }
      for (size_t j = 0; j < n; ++j) {
        grad.dbeta[gate] += dd[j] * missing[t][j];
        grad.dv[value + j] = b * dd[j];
      }
      for (size_t i = 0; i < cells; ++i) {
        grad.dk[key + i / n] += L[i] * b * missing[t][i % n] - b * decayed[t][i] * dd[i % n];
        L[i] -= b * k[key + i / n] * dd[i % n];
        grad.dg[gate] += L[i] * decayed[t][i];
        L[i] *= keep;
      }
    }
  }
  return grad;
}

struct GateGradients {
  std::vector<double> da, db, da_log, ddt_bias;
};

inline GateGradients delta_gates_vjp(const std::vector<double>& dg, const std::vector<double>& dbeta,
                                     const std::vector<double>& a, const std::vector<double>& b,
                                     const std::vector<double>& a_log, const std::vector<double>& dt_bias) {
  const size_t heads = a_log.size();
  GateGradients grad{std::vector<double>(a.size()), std::vector<double>(a.size()), std::vector<double>(heads),
                     std::vector<double>(heads)};
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t h = i % heads;
    const double x = a[i] + dt_bias[h], rate = -std::exp(a_log[h]), strength = logistic(b[i]);
    grad.da[i] = rate * (x > 20 ? 1.0 : logistic(x)) * dg[i];
    grad.db[i] = strength * (1 - strength) * dbeta[i];
    grad.da_log[h] += rate * (x > 20 ? x : std::log(1 + std::exp(x))) * dg[i];
    grad.ddt_bias[h] += grad.da[i];
  }
  return grad;
}

}  // namespace nibble::oracle

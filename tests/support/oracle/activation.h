// The gated activations elementwise, written from ops/activation/*.h.
#pragma once

#include <vector>

#include "tests/support/oracle/norm.h"

namespace nibble::oracle {

template <class F>
std::vector<F> swiglu(const std::vector<F>& gate, const std::vector<F>& up) {
  std::vector<F> y;
  for (size_t i = 0; i < up.size(); ++i) y.push_back(gate[i] * logistic(gate[i]) * up[i]);
  return y;
}

template <class F>
std::vector<F> sigmoid_gate(const std::vector<F>& gate, const std::vector<F>& x) {
  std::vector<F> y;
  for (size_t i = 0; i < x.size(); ++i) y.push_back(logistic(gate[i]) * x[i]);
  return y;
}

struct GateVjp {
  std::vector<double> dgate, dx;
};

inline GateVjp swiglu_vjp(const std::vector<double>& dy, const std::vector<double>& gate,
                          const std::vector<double>& up) {
  GateVjp vjp;
  for (size_t i = 0; i < dy.size(); ++i) {
    vjp.dgate.push_back(dy[i] * up[i] * silu_slope(gate[i]));
    vjp.dx.push_back(dy[i] * gate[i] * logistic(gate[i]));
  }
  return vjp;
}

inline GateVjp sigmoid_gate_vjp(const std::vector<double>& dy, const std::vector<double>& gate,
                                const std::vector<double>& x) {
  GateVjp vjp;
  for (size_t i = 0; i < dy.size(); ++i) {
    vjp.dgate.push_back(dy[i] * x[i] * logistic_slope(gate[i]));
    vjp.dx.push_back(dy[i] * logistic(gate[i]));
  }
  return vjp;
}

}  // namespace nibble::oracle

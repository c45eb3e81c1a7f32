// delta_gates: decay and write strength of the gated delta rule.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// delta_gates:  g[t,h] = -exp(a_log[h]) * softplus(a[t,h] + dt_bias[h]);   beta[t,h] = sigmoid(b[t,h])
///   softplus(x) = log(1 + exp(x)), and x itself above 20
/// shapes   a, b, g, beta [T,Hv] f32   a_log, dt_bias [Hv] f32   T >= 0
/// numeric  f32 throughout; g <= 0, 0 <= beta <= 1
/// effects  writes g and beta; g may be a, beta may be b
void delta_gates(Context& cx, const Tensor& a, const Tensor& b, const Tensor& a_log, const Tensor& dt_bias, Tensor& g,
                 Tensor& beta);

}  // namespace nibble::ops

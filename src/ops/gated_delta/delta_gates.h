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

/// delta_gates_vjp, with x = a + dt_bias:
///   da = -exp(a_log) * sigmoid(x) * dg;   da_log += sum_t dg * g;   ddt_bias += sum_t da;   db = dbeta * beta*(1-beta)
///   (1 instead of sigmoid(x) above x = 20, where softplus is x itself)
/// shapes   dg, dbeta, da, db [T,Hv] f32   da_log, ddt_bias [Hv] f32
/// numeric  f32; g and beta are computed anew. Sums over t run in f64 over runs of 64 rows, then over the runs in f32,
/// so
///          their bits do not depend on the number of threads
/// effects  overwrites da and db, adds to da_log and ddt_bias; outputs alias nothing; scratch from cx.arena
void delta_gates_vjp(Context& cx, const Tensor& dg, const Tensor& dbeta, const Tensor& a, const Tensor& b,
                     const Tensor& a_log, const Tensor& dt_bias, Tensor& da, Tensor& db, Tensor& da_log,
                     Tensor& ddt_bias);

}  // namespace nibble::ops

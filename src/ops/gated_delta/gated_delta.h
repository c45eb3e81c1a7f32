// gated_delta: the gated delta rule, a linear recurrence with one matrix state per value head.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// gated_delta: one state per value head h, key head kh = h / (Hv/Hk).  For t = 0..T-1:
///   S~ = exp(g[t,h]) * S[h]                           decay first
///   d  = beta[t,h] * (v[t,h,:] - S~^T k[t,kh,:])      [Dv]
///   S[h] = S~ + k[t,kh,:] d^T                         [Dk,Dv]
///   y[t,h,:] = scale * S[h]^T q[t,kh,:]
/// shapes   q, k [T,Hk,Dk]   v, y [T,Hv,Dv]   g, beta [T,Hv]   S [Hv,Dk,Dv]   all f32; Dk, Dv multiples of 16; T >= 0
/// domain   g <= 0, beta in [0,1], q and k already L2-normed
/// numeric  S and all sums in f32. A call is cut into tiles of 64 rows counted from its first row: a tile of 17..64
/// rows
///          uses the chunked (WY) form, one of <= 16 rows the recurrence above. The two agree to f32 rounding.
///          A row's bits depend on the state before its tile and the rows of its tile; in a tile of <= 16 rows on the
///          rows up to it alone. So cutting a call at multiples of 64 changes no bit, nor does any cut of <= 16 rows.
/// effects  writes y, updates S in place, leaves inputs; y aliases nothing; scratch from cx.arena
void gated_delta(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
                 float scale, Tensor& S, Tensor& y);

/// gated_delta_vjp: one whole sequence, from the state S0 before its first token. Backwards, t = T-1..0, with L the
/// gradient of the state after t (dS_T at first, dS0 at last), S the state after t and S~, d as above:
///   dq = scale * S dy;   L += scale * q dy^T;   dd = L^T k;   dbeta = <dd, v - S~^T k>;   dv = beta * dd
///   dk = L d - beta * S~ dd;   L~ = L - beta * k dd^T;   dg = <L~, S~>;   L = exp(g) * L~
/// shapes   as above; dy [T,Hv,Dv]   S0, dS_T, dS0 [Hv,Dk,Dv]: an empty tensor means a zero S0 or dS_T, or no wish for
///          dS0   each gradient has the shape of its operand; dq, dk are summed over the Hv/Hk value heads of a key
///          head
/// numeric  f32. The tiles of the forward: 17..64 rows use the chunked form, <= 16 rows the recurrence; the states
///          before the tiles are recomputed inside. dg of the first token is exactly 0 where S0 is. The bits do not
///          depend on the number of threads.
/// effects  overwrites all gradients; they alias nothing; scratch from cx.arena: per thread the states and
///          64 * (2*Dv + 128) floats for every 64 tokens
void gated_delta_vjp(Context& cx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                     const Tensor& beta, float scale, const Tensor& S0, const Tensor& dS_T, Tensor& dq, Tensor& dk,
                     Tensor& dv, Tensor& dg, Tensor& dbeta, Tensor& dS0);

}  // namespace nibble::ops

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

}  // namespace nibble::ops

// conv_silu: the short causal depthwise convolution in front of the delta rule, with its activation.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// conv_silu:  pre[t,c] = sum_{j=0..3} w[c,j] * mix[t-3+j,c];   y[t,c] = pre * sigmoid(pre)
///   rows -3..-1 of mix are the state, oldest first; w[c,3] meets the current token
/// shapes   mix, y [T,C] f32   w [C,4] f32   state [3,C] f32   T >= 0
/// numeric  f32, j ascending
/// effects  writes y, which aliases nothing; state becomes the last 3 rows of (state, mix)
void conv_silu(Context& cx, const Tensor& mix, const Tensor& w, Tensor& state, Tensor& y);

/// conv_silu_vjp, with d[t,c] = dy[t,c] * silu'(pre[t,c]), zero for t >= T:
///   dmix[t,c] = sum_j w[c,j] * d[t+3-j,c];   dw[c,j] += sum_t d[t,c] * mix[t-3+j,c]
///   silu'(z) = s * (1 + z * (1 - s)), s = sigmoid(z)
/// shapes   dy, mix, dmix [T,C] f32   w, dw [C,4] f32   state [3,C] f32, as it stood before the forward; empty: zeros
/// numeric  f32, t ascending in dw
/// effects  overwrites dmix, which may be dy; adds to dw, which may be empty: not wanted. The state gets no gradient:
///          a document starts behind it. Scratch from cx.arena.
void conv_silu_vjp(Context& cx, const Tensor& dy, const Tensor& mix, const Tensor& w, const Tensor& state, Tensor& dmix,
                   Tensor& dw);

}  // namespace nibble::ops

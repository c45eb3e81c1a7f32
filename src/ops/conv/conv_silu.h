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

}  // namespace nibble::ops

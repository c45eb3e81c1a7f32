// rms_norm: root mean square normalisation of the last dimension.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// What a norm weight w multiplies with: w itself, or 1 + w (zero-centred weights, as Qwen3.5 stores them).
enum class Gain : uint8_t { plain, one_plus };

/// rms_norm:  r = 1/sqrt(mean_i(x_i^2) + eps);  y_i = x_i * r * gain_i     for each row of N
/// shapes   x, y [...,N] f32   w [N] f32
/// numeric  sums in f32 in one fixed order per row
/// effects  writes y, which may be x
void rms_norm(Context& cx, const Tensor& x, const Tensor& w, float eps, Gain gain, Tensor& y);

}  // namespace nibble::ops

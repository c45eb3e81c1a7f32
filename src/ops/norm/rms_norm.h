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

/// rms_norm_vjp, with n_i = x_i * r and u_i = dy_i * gain_i:
///   dx_i = r * (u_i - n_i * mean_j(u_j n_j));   dw_i += sum over the rows of dy_i * n_i
/// shapes   dy, x, dx [...,N] f32   w, dw [N] f32
/// numeric  sums in f32; the rows of dw in blocks that depend on their number alone
/// effects  overwrites dx, which may be dy or x; adds to dw, which may be empty: not wanted; scratch from cx.arena
void rms_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& w, float eps, Gain gain, Tensor& dx,
                  Tensor& dw);

}  // namespace nibble::ops

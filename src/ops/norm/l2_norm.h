// l2_norm: scales each row to unit length.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// l2_norm:  y_i = x_i / sqrt(sum_i(x_i^2) + eps)     for each row of N; a row of zeros stays zero (eps > 0)
/// shapes   x, y [...,N] f32
/// numeric  sums in f32 in one fixed order per row
/// effects  writes y, which may be x
void l2_norm(Context& cx, const Tensor& x, float eps, Tensor& y);

/// l2_norm_vjp, with r = 1/sqrt(sum_i(x_i^2) + eps):  dx_i = r * (dy_i - r x_i * sum_j(dy_j r x_j))
/// shapes   dy, x, dx [...,N] f32
/// effects  overwrites dx, which may be dy or x
void l2_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, float eps, Tensor& dx);

}  // namespace nibble::ops

// l2_norm: scales each row to unit length.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// l2_norm:  y_i = x_i / sqrt(sum_i(x_i^2) + eps)     for each row of N; a row of zeros stays zero (eps > 0)
/// shapes   x, y [...,N] f32
/// numeric  sums in f32 in one fixed order per row
/// effects  writes y, which may be x
void l2_norm(Context& cx, const Tensor& x, float eps, Tensor& y);

}  // namespace nibble::ops

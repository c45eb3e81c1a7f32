// Norms of gradients, the same bits for any number of threads and on every SIMD target.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// sum_i x_i^2: f32 sums over blocks of 4096, in 16 interleaved chains, added up in f64 by a binary tree over the
/// blocks. Not finite when an element is not, or when a square overflows f32.
/// shapes   x any, f32 or bf16
double squared_norm(Context& cx, const Tensor& x);

/// The factor that brings a gradient of this norm to at most `limit`: min(1, limit / (norm + 1e-6)).
inline float clip_factor(double norm, double limit) {
  const double factor = limit / (norm + 1e-6);
  return factor < 1 ? static_cast<float>(factor) : 1.0f;
}

}  // namespace nibble::ops

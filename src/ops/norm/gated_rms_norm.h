// gated_rms_norm: the output norm of a delta-rule layer; norm first, gate afterwards.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

enum class Gate : uint8_t { silu, sigmoid };

/// gated_rms_norm:  r = 1/sqrt(mean_i(x_i^2) + eps);  y_i = x_i * r * w_i * gate(z_i)     for each row of Dv
///   silu(z) = z * sigmoid(z),  sigmoid(z) = 1/(1+exp(-z));  w is plain (no 1 +) and shared by all heads
/// shapes   x, z, y [T,Hv,Dv] f32   w [Dv] f32
/// numeric  sums in f32 in one fixed order per row
/// effects  writes y, which may be x or z
void gated_rms_norm(Context& cx, const Tensor& x, const Tensor& z, const Tensor& w, float eps, Gate gate, Tensor& y);

}  // namespace nibble::ops

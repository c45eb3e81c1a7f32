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

/// gated_rms_norm_vjp, with n_i = x_i * r and u_i = dy_i * w_i * gate(z_i):
///   dx_i = r * (u_i - n_i * mean_j(u_j n_j));   dz_i = dy_i * n_i * w_i * gate'(z_i)
///   dw_i += sum over the rows of dy_i * n_i * gate(z_i)
///   silu'(z) = s * (1 + z * (1 - s)), sigmoid'(z) = s * (1 - s), s = sigmoid(z)
/// shapes   dy, x, z, dx, dz [T,Hv,Dv] f32   w, dw [Dv] f32
/// numeric  sums in f32; the rows of dw in blocks that depend on their number alone
/// effects  overwrites dx, which may be dy or x, and dz, which may be z; adds to dw, which may be empty: not wanted;
///          scratch from cx.arena
void gated_rms_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& z, const Tensor& w, float eps,
                        Gate gate, Tensor& dx, Tensor& dz, Tensor& dw);

}  // namespace nibble::ops

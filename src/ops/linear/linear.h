// linear: a matrix product with a weight in one of several formats.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

enum class WeightFormat : uint8_t { f32, bf16, nvfp4 };

/// A weight [out,in]. It owns nothing and may lie in a mapped file at any alignment.
struct Linear {
  WeightFormat format = WeightFormat::f32;
  int64_t out = 0, in = 0;
  Tensor weight;           // f32 or bf16 [out,in]; nvfp4: u8 codes [out,in/2], element 2i in the low nibble of byte i
  Tensor block_scale;      // nvfp4: f8e4m3 [out,in/16], one scale per 16 consecutive inputs
  float tensor_scale = 1;  // nvfp4: the factor of all blocks
  float input_scale = 0;   // > 0: inputs are rounded to NVFP4 under this static tensor scale before the product (W4A4)

  /// What one pass over the weight reads.
  size_t weight_bytes() const { return weight.bytes() + (block_scale.empty() ? 0 : block_scale.bytes()); }
};

/// linear:  y[t,n] = c * sum_k x'[t,k] * w'[n,k]
///   f32, bf16   w' = weight, c = 1
///   nvfp4       w' = e2m1(code) * e4m3(block_scale), exact in f32; c = tensor_scale, applied to the finished sum
///   x' = x, rounded to BF16 in Numeric::bf16_act, then to NVFP4 and back when input_scale > 0 (ops/quant)
/// shapes   x [T,in] f32   y [T,out] f32   T >= 0; in is a multiple of 16 for nvfp4, any otherwise
/// numeric  products and sums in f32. For each (t,n) k ascends in one fixed lane pattern, so the bits of a row depend
///          on nothing but that row: not on T, on its neighbours or on the number of threads.
/// effects  writes y, which aliases nothing; scratch from cx.arena
void linear(Context& cx, const Tensor& x, const Linear& w, Tensor& y);

/// linear_vjp:  dx[t,k] = c * sum_n dy[t,n] * w'[n,k];   dw[n,k] += sum_t dy[t,n] * x'[t,k]
///   c, w' and x' as above: what the product read. Rounding passes gradients straight through, so dw is the gradient of
///   the unrounded weight that w was made from, dx that of the unrounded x.
/// shapes   dy [T,out] f32   x, dx [T,in] f32   dw [out,in] f32   T >= 0   Numeric::exact only
///          x may be empty when dw is
/// numeric  products and sums in f32: sums of up to 128 terms, which are then added in order. A row of dx depends on
///          that row alone; no bit depends on the number of threads.
/// effects  overwrites dx, adds to dw; an empty tensor means not wanted; neither aliases anything; scratch from
///          cx.arena
void linear_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Linear& w, Tensor& dx, Tensor& dw);

}  // namespace nibble::ops

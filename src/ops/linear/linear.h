// linear: a matrix product with a weight in one of several formats.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

enum class WeightFormat : uint8_t { f32, bf16, fp8, nvfp4 };

/// What happens to the inputs before the product. Each row is rounded by itself.
enum class InputRounding : uint8_t {
  none,
  nvfp4,        // to NVFP4 and back under the static tensor scale input_scale; larger values saturate (A4)
  nvfp4_token,  // the same under the tensor scale that belongs to the row's own largest magnitude
  fp8,          // x' = e4m3(clamp(x / input_scale, +-448)) * input_scale (A8)
};

/// A weight [out,in]. It owns nothing and may lie in a mapped file at any alignment, but for channel_scale.
struct Linear {
  WeightFormat format = WeightFormat::f32;
  int64_t out = 0, in = 0;
  Tensor weight;           // f32, bf16 or f8e4m3 [out,in]; nvfp4: u8 codes [out,in/2], element 2i in the low nibble
  Tensor block_scale{};    // nvfp4: f8e4m3 [out,in/16], one scale per 16 consecutive inputs
  float tensor_scale = 1;  // nvfp4, fp8: the factor of all blocks or weights
  Tensor channel_scale{};  // fp8: f32 [out], a factor per output instead of tensor_scale; empty: there is one for all
  Tensor low_rank_a{},
      low_rank_b{};  // bf16 [r,in] and [out,r], SVDQuant's branch beside an nvfp4 weight; or both empty
  InputRounding inputs = InputRounding::none;
  float input_scale = 0;  // > 0 where `inputs` is static; else it may be known without being used

  /// What one pass over the weight reads.
  size_t weight_bytes() const {
    size_t bytes = 0;
    for (const Tensor* part : {&weight, &block_scale, &channel_scale, &low_rank_a, &low_rank_b}) {
      if (!part->empty()) bytes += part->bytes();
    }
    return bytes;
  }
};

/// linear:  y[t,n] = c[n] * sum_k x'[t,k] * w'[n,k]  [+ sum_r b[n,r] * z[t,r],  z[t,r] = sum_k a[r,k] * x[t,k]]
///   f32, bf16   w' = weight, c = 1
///   fp8         w' = e4m3(weight), exact in f32; c = tensor_scale or channel_scale[n], applied to the finished sum
///   nvfp4       w' = e2m1(code) * e4m3(block_scale), exact in f32; c = tensor_scale, applied to the finished sum
///   x is rounded to BF16 in Numeric::bf16_act, and so is z; x' is x, rounded on as w.inputs says (ops/quant)
///   a, b        low_rank_a, low_rank_b, where the weight has them
/// shapes   x [T,in] f32   y [T,out] f32   T >= 0; in is a multiple of 16 for nvfp4 weights or inputs, any otherwise
/// domain   no NaN byte among codes and scales
/// numeric  products and sums in f32. For each (t,n) k ascends in one fixed lane pattern, so the bits of a row depend
///          on nothing but that row: not on T, on its neighbours or on the number of threads.
/// effects  writes y, which aliases nothing; scratch from cx.arena
void linear(Context& cx, const Tensor& x, const Linear& w, Tensor& y);

/// linear_vjp:  dx[t,k] = sum_n c[n] * dy[t,n] * w'[n,k]  [+ sum_r dz[t,r] * a[r,k],  dz[t,r] = sum_n dy[t,n] * b[n,r]]
///              dw[n,k] += sum_t dy[t,n] * x'[t,k]
///   c, w' and x' as above: what the product read. Rounding passes gradients straight through, so dw is the gradient of
///   the unrounded weight that w was made from, dx that of the unrounded x.
/// shapes   dy [T,out] f32   x, dx [T,in] f32   dw [out,in] f32   T >= 0   Numeric::exact only
///          x may be empty when dw is; dw is empty for a weight with a low-rank branch
/// numeric  products and sums in f32: sums of up to 128 terms, which are then added in order. A row of dx depends on
///          that row alone; no bit depends on the number of threads.
/// effects  overwrites dx, adds to dw; an empty tensor means not wanted; neither aliases anything; scratch from
///          cx.arena
void linear_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Linear& w, Tensor& dx, Tensor& dw);

}  // namespace nibble::ops

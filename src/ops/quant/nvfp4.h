// NVFP4 over whole tensors. The arithmetic of one block is that of tensor/numeric.h, and only that: exporter, fake
// quantizer, calibrator and kernels agree because they call the same functions.
//
// Names: w [N,K], K a multiple of 16; a block is 16 consecutive elements of a row. A quantized tensor is
//   codes  [N,K/2]  u8      byte j of a row = code[2j+1] << 4 | code[2j]: the low nibble is the even element
//   scales [N,K/16] f8e4m3  one byte per block, row-major
//   ws2             f32     one tensor scale; decoded value = fl(e2m1(code) * fl(scale * ws2))
// Inputs may be f32, bf16 or f16 and need no alignment, as mapped checkpoints promise none. Everything here runs on
// cx.pool with scratch from cx.arena, and gives the same bits for any number of threads and on every SIMD target.
#pragma once

#include <cstdint>

#include "tensor/context.h"
#include "tensor/numeric.h"

namespace nibble::ops {

/// amax = max |w| by comparison, exact. Where w holds NaN or infinity, `row` and `col` are the first such element in
/// row-major order and amax means nothing.
struct TensorAmax {
  float amax = 0;
  int64_t row = -1, col = -1;
  bool finite() const { return row < 0; }
};
TensorAmax tensor_amax(Context& cx, const Tensor& w);

/// What quantization did to a tensor.
struct Nvfp4Stats {
  int64_t blocks = 0;
  int64_t floor_blocks = 0;  // scale byte 0x01: too small for the grid, values may have become zero
  int64_t low_blocks = 0;    // scale below 2^-6, floor blocks included: fewer than 3 mantissa bits in the scale
  int64_t top_blocks = 0;    // scale byte 0x7E
  int64_t lost_rows = 0;     // rows that were not zero and became zero
  int64_t first_lost_row = -1;
  double energy = 0;     // sum of w^2
  double error = 0;      // sum of (decoded - w)^2
  double max_error = 0;  // max |decoded - w|

  /// error / energy; 0 for a zero tensor.
  double relative_error() const { return energy > 0 ? error / energy : 0; }
};

/// Block scales of strategy `max`: every block's largest magnitude is mapped to 6.
void nvfp4_scales_max(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales);

/// Block scales of strategy `mse`: of the 126 scale bytes 0x01..0x7E the one whose codes have the smallest error
///   err(s) = sum_16 (decoded_i - w_i)^2,   summed in f64 in the order of the index,
/// the lowest byte where several have it. A zero block has scale 1.0. About ten bytes of a block are looked at; those
/// left out cannot win. domain: w finite. An element costs some twenty times what strategy `max` costs.
void nvfp4_scales_mse(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales);

/// Block scales of strategy `four_over_six`: a block's largest magnitude is mapped to 6 or, where that has the smaller
/// error (as above, strict), to 4, because the grid is coarse near its top. `scale` is that of range
/// kNvfp4RangeFourOverSix. Source: github.com/mit-han-lab/fouroversix.
void nvfp4_scales_four_over_six(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales);

/// Block scales of strategy `hessian`: of the 126 bytes the one with the smallest
///   err(s) = e' H_b e,   e = decoded - w of the 16 elements, in f64 in a fixed order,
/// the lowest byte where several have it. hessian [K/16,16,16] f32: H_b = mean over tokens of x_b x_b', symmetric
/// positive semidefinite, shared by all rows. A zero block has scale 1.0; where H_b is zero, no token having said
/// anything, strategy `mse` decides. domain: w and hessian finite.
void nvfp4_scales_hessian(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& hessian,
                          const Tensor& scales);

/// Codes for given block scales, whoever chose them: round to nearest. `scales` hold no NaN byte. With scale.zero all
/// codes are 0.
Nvfp4Stats nvfp4_encode(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales,
                        const Tensor& codes);

/// Strategy `max` in one call; amax is that of w or of the fused group w belongs to. Writes codes and scales.
Nvfp4Stats nvfp4_quantize(Context& cx, const Tensor& w, float amax, const Tensor& codes, const Tensor& scales);

/// y [N,K] f32 = the decoded values.
void nvfp4_dequantize(Context& cx, const Tensor& codes, const Tensor& scales, float ws2, const Tensor& y);

/// y [T,K] f32 = decoded(quantized(x)) with scales of strategy `max`, bit for bit what nvfp4_quantize and
/// nvfp4_dequantize give; y may alias x. For activations with a calibrated input scale pass {input_scale, false}:
/// larger values saturate. A NaN makes its whole block NaN.
void nvfp4_fake(Context& cx, const Tensor& x, Nvfp4TensorScale scale, const Tensor& y);

}  // namespace nibble::ops

// FP8 (E4M3) over whole tensors; the arithmetic of one element is that of tensor/numeric.h.
//
// w [N,K] f32, bf16 or f16 at any alignment; codes [N,K] f8e4m3; scales [N] f32. Everything here runs on cx.pool with
// scratch from cx.arena, and gives the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "tensor/context.h"
#include "tensor/numeric.h"

namespace nibble::ops {

struct Fp8Stats {
  double energy = 0;     // sum of w^2
  double error = 0;      // sum of (decoded - w)^2
  double max_error = 0;  // max |decoded - w|

  /// error / energy; 0 for a zero tensor.
  double relative_error() const { return energy > 0 ? error / energy : 0; }
};

/// Codes under one scale for all, fp8_scale(tensor_amax) or a calibrated one: larger values saturate. scale > 0.
Fp8Stats fp8_quantize(Context& cx, const Tensor& w, float scale, const Tensor& codes);

/// Writes the scale of every row, from its own largest magnitude, and the codes.
Fp8Stats fp8_quantize_channels(Context& cx, const Tensor& w, const Tensor& codes, const Tensor& scales);

/// y [N,K] f32 = the decoded values, under one scale or one per row.
void fp8_dequantize(Context& cx, const Tensor& codes, float scale, const Tensor& y);
void fp8_dequantize_channels(Context& cx, const Tensor& codes, const Tensor& scales, const Tensor& y);

}  // namespace nibble::ops

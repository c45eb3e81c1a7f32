// Inputs rounded to a narrow format and back, row by row: what a product with quantized activations reads. The static
// NVFP4 form is nvfp4_fake of ops/quant/nvfp4.h.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// y [T,K] f32 = x rounded to NVFP4 and back, every row under its own tensor scale fl(amax(row) / 2688): nothing
/// saturates, and no row depends on another. A row whose amax / 2688 is no normal number becomes zero; one that holds
/// NaN or infinity becomes NaN. K is a multiple of 16; y may be x.
void nvfp4_fake_rows(Context& cx, const Tensor& x, const Tensor& y);

/// y [T,K] f32 = e4m3(clamp(fl(x / scale), -448, 448)) * scale; a NaN stays one. y may be x. scale > 0.
void fp8_fake(Context& cx, const Tensor& x, float scale, const Tensor& y);

}  // namespace nibble::ops

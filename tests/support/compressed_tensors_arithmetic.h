// The arithmetic of compressed-tensors 0.19 (through llm-compressor), restated; ours differs in the roundings of its
// scales.
#pragma once

#include <algorithm>
#include <cmath>

#include "tensor/numeric.h"

namespace nibble::test {

/// T is the dtype of the model: bf16 rounds the quotients of the scales.
struct CompressedTensorsArithmetic {
  bool bf16;
  float global;  // weight_global_scale: it divides

  static float in_dtype(bool bf16, float x) { return bf16 ? round_to_bf16(x) : x; }
  static CompressedTensorsArithmetic of(bool bf16, float amax) {
    // torch computes number / tensor as reciprocal * number, each rounded.
    return {bf16, in_dtype(bf16, 2688 * in_dtype(bf16, 1 / amax))};
  }

  uint8_t block_scale(const float* w) const {
    float amax = 0;
    for (int64_t i = 0; i < kNvfp4Block; ++i) amax = std::max(amax, std::abs(w[i]));
    const uint8_t byte = f32_to_e4m3(std::clamp(global * in_dtype(bf16, amax / 6), -448.0f, 448.0f));
    return byte == 0 ? 0x20 : byte;  // .125
  }
  uint8_t code(float w, uint8_t scale) const { return f32_to_e2m1(w / (e4m3_to_f32(scale) / global)); }
  float value(uint8_t code, uint8_t scale) const { return e2m1_to_f32(code) * (e4m3_to_f32(scale) / global); }
};

}  // namespace nibble::test

// The rows behind the ops of nvfp4.h: one call per row, on the best SIMD target of this machine. `blocks` counts blocks
// of 16; nothing needs alignment, and y may be x.
#pragma once

#include <cstdint>

namespace nibble::ops {

struct Nvfp4RowSums {
  // Sums of squares in units of the tensor scale, so that nothing over- or underflows whatever the size of the weights.
  double energy = 0, error = 0;
  bool lost = false;  // had a weight that is not zero, has no code that is not zero
};

/// One scale byte per block by strategy `max`.
void nvfp4_scales_row(const float* w, int64_t blocks, float ws2, uint8_t* scales);

/// One scale byte per block by strategy `mse`.
void nvfp4_search_row(const float* w, int64_t blocks, float ws2, uint8_t* scales);

/// Packed codes under given scales.
Nvfp4RowSums nvfp4_encode_row(const float* w, int64_t blocks, float ws2, const uint8_t* scales, uint8_t* codes);

/// y = the decoded codes of x under scales by strategy `max`.
void nvfp4_fake_row(const float* x, int64_t blocks, float ws2, float* y);

}  // namespace nibble::ops

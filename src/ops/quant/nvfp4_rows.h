// The rows behind the ops of nvfp4.h: one call per row, on the best SIMD target of this machine. `blocks` counts blocks
// of 16; nothing needs alignment, and y may be x.
#pragma once

#include <cstdint>

namespace nibble::ops {

struct Nvfp4RowSums {
  // Sums of squares in units of the tensor scale, so that nothing over- or underflows whatever the size of the weights.
  double energy = 0, error = 0;
  float max_error = 0;  // |decoded - w|, in the same units
  bool lost = false;    // had a weight that is not zero, has no code that is not zero
};

/// One scale byte per block by strategy `max`.
void nvfp4_scales_row(const float* w, int64_t blocks, float ws2, uint8_t* scales);

/// One scale byte per block by strategy `mse`.
void nvfp4_search_row(const float* w, int64_t blocks, float ws2, uint8_t* scales);

/// One scale byte per block by strategy `four_over_six`.
void nvfp4_four_over_six_row(const float* w, int64_t blocks, float ws2, uint8_t* scales);

/// H_b of one input block as the search by strategy `hessian` reads it: e' H e = sum_i e_i (H_ii e_i + sum_{j>i} 2 H_ij
/// e_j), with both triangles averaged.
struct Nvfp4BlockHessian {
  double upper[136] = {};  // row by row, 16 + 15 + … + 1
  double magnitude = 0;    // sum_ij |H_ij|
  double trace = 0;

  bool zero() const { return magnitude == 0; }
};
Nvfp4BlockHessian nvfp4_block_hessian(const float* h);

/// One scale byte per block by strategy `hessian`.
void nvfp4_hessian_row(const float* w, int64_t blocks, float ws2, const Nvfp4BlockHessian* hessian, uint8_t* scales);

/// Packed codes under given scales.
Nvfp4RowSums nvfp4_encode_row(const float* w, int64_t blocks, float ws2, const uint8_t* scales, uint8_t* codes);

/// y = the decoded codes of x under scales by strategy `max`.
void nvfp4_fake_row(const float* x, int64_t blocks, float ws2, float* y);

}  // namespace nibble::ops

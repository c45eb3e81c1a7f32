// The CPU kernels of linear and its vjp, between their checks (linear.cc, linear_vjp.cc) and the SIMD targets
// (linear_cpu.cc).
#pragma once

#include "ops/linear/linear.h"

namespace nibble::ops {

/// That the tensors of a weight are what its format says.
void check_weight(const Linear& w);

/// Up to this many tokens a weight goes straight from its format into the products; above, panels of rows are decoded
/// once and meet tiles of tokens. Both run the same chain of operations per result.
constexpr int64_t kFewTokens = 4;

/// The tiles of the second form. A decoded panel block (24 KiB) stays in the L1 cache while the tokens pass.
constexpr int64_t kPanelRows = 24, kTokenTile = 64, kBlock = 256;

/// Floats of scratch that linear_panel_cpu needs: a decoded block and one vector (16 lanes at most) per result.
constexpr int64_t kPanelScratch = kPanelRows * kBlock + kPanelRows * kTokenTile * 16;

/// y[t, begin..end) for all T <= kFewTokens tokens. Operand x: row t at x + t * padded, zeros from w.in to `padded`, a
/// multiple of 16.
void linear_few_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end,
                    float* y);

/// y[t_begin..t_end, n..n + kPanelRows) as far as they exist. Operand x: cut along k in blocks of kBlock, each block
/// [tokens, width] contiguous; zeros from w.in to `padded`.
void linear_panel_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end,
                      int64_t n, float* scratch, float* y);

/// block [rows,width] = w'[n..n + rows, k..k + width), with zeros where the weight has none; k and width are multiples
/// of 16.
void linear_decode_cpu(const Linear& w, int64_t n, int64_t rows, int64_t k, int64_t width, float* block);

}  // namespace nibble::ops

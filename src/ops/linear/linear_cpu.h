// The CPU kernels of linear and its vjp, between their checks (linear.cc, linear_vjp.cc) and the SIMD targets
// (linear_cpu.cc).
#pragma once

#include <algorithm>

#include "ops/linear/linear.h"

namespace nibble::ops {

/// That the tensors of a weight are what its format says.
void check_weight(const Linear& w);

/// c[n] of the contract.
inline float output_factor(const Linear& w, int64_t n) {
  return w.channel_scale.empty() ? w.tensor_scale : w.channel_scale.f32()[n];
}

/// The operands of the products: `plain` is x or, in bf16_act, x rounded to BF16, which the low-rank branch reads; `x`
/// is x' of the contract. Either may be a copy in scratch.
struct LinearInputs {
  Tensor plain, x;
};
LinearInputs linear_inputs(Context& cx, const Tensor& x, const Linear& w);

/// Up to this many tokens a weight goes straight from its format into the products; above, panels of rows are decoded
/// once and meet tiles of tokens. Both run the same chain of operations per result.
constexpr int64_t kFewTokens = 4;

/// The tiles of the second form. Of a block of decoded rows (72 KiB, L2) a few at a time (18 KiB, L1) meet the tokens,
/// whose operand (384 KiB at most) stays in L2 while the rows pass.
constexpr int64_t kPanelRows = 24, kBlock = 768;
constexpr int64_t token_tile(int64_t padded) {
  return padded > kBlock ? 64 : std::clamp<int64_t>(98304 / padded / 4 * 4, 64, 512);
}

/// Floats of scratch that linear_panel_cpu needs: a decoded block and, between blocks, one vector (16 lanes at most)
/// per result.
constexpr int64_t panel_floats(int64_t padded) {
  return kPanelRows * kBlock + (padded > kBlock ? kPanelRows * token_tile(padded) * 16 : 0);
}

/// y[t, begin..end) for all T <= kFewTokens tokens. Operand x: row t at x + t * padded, zeros from w.in to `padded`, a
/// multiple of 16.
void linear_few_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end,
                    float* y);

/// y[t_begin..t_end, n..n + kPanelRows) as far as they exist, at most token_tile(padded) tokens. Operand x: cut along k
/// in blocks of kBlock, each block [tokens, width] contiguous; zeros from w.in to `padded`.
void linear_panel_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end,
                      int64_t n, float* scratch, float* y);

/// A tile of a product with the weight on its right: C[i,j] += sum_n A[i,n] w'[n, column + j], n over all rows of w.
struct WeightProduct {
  const Linear* w;
  const float* a;
  int64_t a_row, a_col;  // strides, one of them 1
  int64_t rows, column, columns;
  float* c;
  int64_t c_stride;
};

/// Rows of the weight that are decoded at a time, 32 columns of them (16 KiB) staying in L1 while all rows of A pass.
constexpr int64_t kProductDepth = 128, kProductColumns = 32;
constexpr int64_t weight_product_floats(int64_t rows) {
  return kProductDepth * (kProductColumns + rows) + kProductColumns * rows;
}
void weight_product_cpu(const WeightProduct& product, float* scratch);

}  // namespace nibble::ops

// The branch of SVDQuant (Li et al., arXiv:2411.05007): the largest singular directions of a weight stay in BF16, and
// what is left, which has fewer outliers, is quantized.
//
//   W = U S V';   a = V'[:r]  [r,K],   b = U[:,:r] S[:r]  [N,r];   residual = W - bf16(b) bf16(a)
#pragma once

#include <cstdint>

#include "base/result.h"
#include "tensor/context.h"

namespace nibble::quantize {

struct LowRankOptions {
  int64_t rank = 32;
  /// Above this many rows and columns (both) the range is found by random projection (Halko, Martinsson, Tropp,
  /// arXiv:0909.4061), with `oversampling` directions more and `power_iterations`. The residual is within 1 % of the
  /// best: two iterations keep that for a flat spectrum, but not where more than r singular values are nearly equal
  /// (2.9 %); six do (.3 %).
  int64_t exact_limit = 1024;
  int64_t oversampling = 8;
  int power_iterations = 6;
  uint64_t seed = 0;
};

struct LowRank {
  OwnedTensor a, b;  // [r,K], [N,r]
};

/// Factors in f32, in descending order of singular values. w [N,K] f32; 1 <= rank <= min(N,K).
/// `invalid_argument` for weights that are not finite.
Result<LowRank> low_rank_factors(Context& cx, const Tensor& w, const LowRankOptions& options);

/// Both factors in bf16, and residual [N,K] f32 = w minus the product of the rounded factors, the product in f64.
/// residual may alias w; empty: not wanted.
Result<LowRank> low_rank(Context& cx, const Tensor& w, const LowRankOptions& options, const Tensor& residual);

}  // namespace nibble::quantize

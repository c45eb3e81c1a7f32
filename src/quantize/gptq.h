// GPTQ (Frantar et al., arXiv:2210.17323): columns are rounded one after another, and each error is made good, as far
// as the Hessian allows, in the columns that are still to come. Block scales are chosen before and stay.
//
//   H = (2/T) sum_t x x'   [K,K]
//   dead j (H_jj == 0, or weights all zero): row and column j of H become 0, H_jj = 1
//   H += damping * mean(diag H) * I;   H^-1 = U' U, U upper triangular
//   for i in order:  q_i = e2m1(fl(w_i / d_i));  e_i = (w_i - e2m1(q_i) d_i) / U_ii;  w_j -= e_i U_ij for j > i
//
// U is found in f64 and kept in f32; weights and errors are f32. Results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "tensor/context.h"
#include "tensor/numeric.h"

namespace nibble::quantize {

struct GptqOptions {
  double damping = .05;
  /// Columns in the order of falling H_jj (stable) instead of their own. A column's scale stays that of its block.
  bool act_order = false;
  /// Columns whose errors are carried on together, a multiple of 16. Only the order of sums depends on it.
  int64_t block = 128;
  /// False: nearest_loss and loss of the report stay 0. They cost about twice what solving costs.
  bool measure = true;
};

struct GptqReport {
  int damping_retries = 0;
  bool fell_back_to_nearest = false;
  /// sum_n e H e' / sum_n w H w' with H as it was given, after GPTQ and for rounding to nearest under the same scales.
  double loss = 0, nearest_loss = 0;
};

/// What depends on the Hessian alone: readers of one input share it.
class GptqFactor {
 public:
  /// hessian [K,K] f32, symmetric. `zero_columns`: empty, or for every column whether the weights of all readers are 0
  /// there. Where H is not positive definite the damping is multiplied by 10, at most three times; then usable() is
  /// false, and gptq_encode rounds to nearest. Needs 12 K^2 bytes while it works and keeps 4 K^2.
  static GptqFactor make(Context& cx, const Tensor& hessian, const GptqOptions& options,
                         std::span<const uint8_t> zero_columns = {});

  bool usable() const { return usable_; }
  int damping_retries() const { return damping_retries_; }
  int64_t columns() const { return static_cast<int64_t>(order_.size()); }
  /// The column that comes i-th.
  const std::vector<int64_t>& order() const { return order_; }
  /// U [K,K] in that order, row-major; zeros below the diagonal.
  const float* upper() const { return upper_.view.f32(); }

 private:
  bool usable_ = false;
  int damping_retries_ = 0;
  std::vector<int64_t> order_;
  OwnedTensor upper_;
};

/// For every column whether it is zero in all of `readers` [N,K] f32.
std::vector<uint8_t> gptq_zero_columns(std::span<const Tensor> readers);

/// Codes [N,K/2] of w [N,K] f32 under given scales [N,K/16]. `hessian` is that of the factor. `compensated` [N,K] f32,
/// empty when not wanted, receives every weight as it was just before it was rounded: rounded to nearest under the same
/// scales it gives the same codes, which is what training starts from. It is not w.
GptqReport gptq_encode(Context& cx, const Tensor& w, const GptqFactor& factor, const Tensor& hessian,
                       Nvfp4TensorScale scale, const Tensor& scales, const GptqOptions& options, const Tensor& codes,
                       const Tensor& compensated = {});

/// Both steps for a linear that shares its input with none.
GptqReport gptq(Context& cx, const Tensor& w, const Tensor& hessian, Nvfp4TensorScale scale, const Tensor& scales,
                const GptqOptions& options, const Tensor& codes, const Tensor& compensated = {});

/// sum_n e_n H e_n' for e [N,K] f32 and a symmetric H [K,K] f32.
double hessian_loss(Context& cx, const Tensor& e, const Tensor& hessian);

}  // namespace nibble::quantize

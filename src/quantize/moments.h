// Second moments of what linears read: the H of GPTQ and, its diagonal blocks, that of local_hessian.
#pragma once

#include <array>
#include <span>
#include <unordered_map>

#include "model/block.h"
#include "quantize/sites.h"

namespace nibble::quantize {

/// h [K,M] += sum_t x[t,:]^T y[t,:] for x [T,K], y [T,M], all f32. Bits do not depend on the number of threads.
void add_moment(Context& cx, const Tensor& x, const Tensor& y, const Tensor& h);

/// Collects H = (2 / sum_t w_t) sum_t w_t x_t x_t^T at some sites of one block while its forward runs.
class Moments {
 public:
  /// `sites` as sites_of gives them, of the block that runs; `wanted` of them are collected.
  Moments(Context& cx, const std::array<std::vector<Reader>, kSites>& sites, const std::array<bool, kSites>& wanted);

  /// The readers of this site will round their inputs to 4 bits under this static scale: so does H.
  void round_inputs(SiteKind site, float input_scale) { collected(site).input_scale = input_scale; }
  /// Weights of the tokens of one site, one per row of the calibration set; must outlive this. Default: all 1.
  void weigh(SiteKind site, std::span<const float> weights) { collected(site).weights = weights; }

  /// To be given to every forward of the block; `first_row` is that of the batch.
  const model::Tap& tap(int64_t first_row) {
    first_row_ = first_row;
    return tap_;
  }

  /// [K,K], after the last batch: call once. A site that saw no token has zeros.
  const Tensor& finish(SiteKind site);

 private:
  struct Collected {
    bool wanted = false;
    OwnedTensor hessian;
    double weight = 0;
    float input_scale = 0;
    std::span<const float> weights;
  };
  Collected& collected(SiteKind site) { return sites_[static_cast<size_t>(site)]; }
  void add(Collected& site, const Tensor& x);

  Context& cx_;
  std::array<Collected, kSites> sites_;
  std::unordered_map<const ops::Linear*, Collected*> first_reader_;
  model::Tap tap_;
  int64_t first_row_ = 0;
};

}  // namespace nibble::quantize

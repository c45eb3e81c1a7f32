// Second moments of what linears read: the H of GPTQ and, its diagonal blocks, that of local_hessian.
#pragma once

#include <array>
#include <unordered_map>

#include "model/block.h"
#include "quantize/sites.h"

namespace nibble::quantize {

/// h [K,M] += sum_t x[t,:]^T y[t,:] for x [T,K], y [T,M], all f32. Bits do not depend on the number of threads.
void add_moment(Context& cx, const Tensor& x, const Tensor& y, const Tensor& h);

/// Collects H = (2/T) sum_t x_t x_t^T at some sites of one block while its forward runs.
class Moments {
 public:
  /// `sites` as sites_of gives them, of the block that runs; `wanted` of them are collected.
  Moments(Context& cx, const std::array<std::vector<Reader>, kSites>& sites, const std::array<bool, kSites>& wanted);

  /// The readers of this site will round their inputs to 4 bits under this static scale: so does H.
  void round_inputs(SiteKind site, float input_scale) { collected(site).input_scale = input_scale; }

  /// To be given to every forward of the block.
  const model::Tap& tap() const { return tap_; }

  /// [K,K], after the last batch: call once. A site that saw no token has zeros.
  const Tensor& finish(SiteKind site);

 private:
  struct Collected {
    bool wanted = false;
    OwnedTensor hessian;
    int64_t tokens = 0;
    float input_scale = 0;
  };
  Collected& collected(SiteKind site) { return sites_[static_cast<size_t>(site)]; }
  void add(Collected& site, const Tensor& x);

  Context& cx_;
  std::array<Collected, kSites> sites_;
  std::unordered_map<const ops::Linear*, Collected*> first_reader_;
  model::Tap tap_;
};

}  // namespace nibble::quantize

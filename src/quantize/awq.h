// AWQ on one layer: for each site behind something that can be divided, the scale of the input channels with which the
// quantized readers disturb the output of their half of the layer least, folded into that something.
//
//   mixer_in   input norm,  (1 + w) form    readers q, k, v, or in_proj_qkv, _z and, unquantized, _b, _a
//   mlp_in     post norm,   (1 + w) form    readers gate, up
//   mlp_out    rows of up_proj              reader down (SwiGLU is linear in up)
//
// The function of the layer stays, but for the rounding of the folded norms and of _a and _b to the types of the file.
// model.norm is never touched: the head, a tied embedding and the draft head all read behind it.
#pragma once

#include <map>

#include "quantize/layer_runner.h"
#include "quantize/site_solver.h"

namespace nibble::quantize {

/// Folds s, a scale per input channel of the site, into what stands before: mixer_in, mlp_in or mlp_out. `block` is
/// that of the names with `prefix`; its changed tensors then view solution.buffers or cx.arena, and changed unquantized
/// ones are noted in the solution, norms in the type of the file (BF16, else F32). Returns what the columns of the
/// readers were multiplied by, which differs from s where a norm was rounded.
std::vector<float> awq_fold(Context& cx, const SiteSolver& solver, const model::Config& config,
                            const std::string& prefix, SiteKind site, std::span<const float> s,
                            model::BlockWeights& block, LayerSolution& solution);

class AwqLayer {
 public:
  /// All references outlive this object. `work` takes temporary files.
  AwqLayer(Context& cx, const SiteSolver& solver, const model::Config& config, LayerRunner& runner,
           const std::string& prefix, const Path& work);

  /// Changes `block`, whose changed tensors then view solution.buffers or cx.arena, and notes changed unquantized
  /// tensors in the solution. input_amax receives what the readers' inputs are at most after the folds.
  Status run(const HiddenStates& in, model::BlockWeights& block, LayerSolution& solution,
             std::map<std::string, float>& input_amax);

 private:
  struct Statistics {
    std::vector<float> mean, amax;  // of |x_k| over all tokens
  };
  Status search(SiteKind site, const HiddenStates& in, model::BlockWeights& block, LayerSolution& solution,
                std::map<std::string, float>& input_amax);
  Result<Statistics> observe(SiteKind site, const HiddenStates& in, model::BlockWeights& block, const Path& reference);
  Result<double> loss(SiteKind site, const HiddenStates& in, const HiddenStates& reference,
                      const model::BlockWeights& block);
  void disturb(SiteKind site, std::span<const float> s, model::BlockWeights& block);
  Status half(SiteKind site, const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap,
              const std::function<Status(const Batch&, const Tensor& out)>& visit);

  Context& cx_;
  const SiteSolver& solver_;
  const model::Config& config_;
  LayerRunner& runner_;
  const std::string& prefix_;
  const Path& work_;
};

}  // namespace nibble::quantize

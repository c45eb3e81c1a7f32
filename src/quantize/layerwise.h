// Strategies that look at data, layer by layer: the hidden states of a calibration set stream through the model, every
// layer is solved with what its linears read, and the next layer sees what the solved one leaves.
//
//   hidden(0) = embed(ids)
//   for each layer:  fold (transform) -> second moments of the inputs -> block scales -> codes (rounding)
//                    hidden(l+1) = layer(hidden(l)), quantized if the rounding compensates errors, else as it was
//
// A second stream, reference(l), passes through the unquantized layers where the rounding is trained against it.
//
// Memory holds one layer's weights and moments and a batch of tokens; hidden states lie in files of the work folder.
// Every finished layer is a file there too, so a run that was killed goes on where it stood, with the same result.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/weights.h"
#include "quantize/plan.h"
#include "quantize/recipe.h"
#include "quantize/signround.h"
#include "quantize/solution.h"

namespace nibble::quantize {

/// Whether a recipe needs this at all: some choice of its depends on data.
bool needs_layerwise(const Recipe& recipe);

struct LayerwiseOptions {
  Recipe recipe;
  /// Largest magnitude of each linear's input (calibrate.h); needed where planned inputs are rounded.
  std::map<std::string, float> input_amax;
  Path work;          // a folder that exists
  Progress progress;  // in layers
  SignroundOptions signround = {};
  /// signround: training begins at what GPTQ gives, instead of at rounding to nearest. It then wants steps that are ten
  /// times smaller, and momentum.
  bool signround_from_gptq = false;
};

/// Solves every layer and, where the plan quantizes it, the head. `weights` are unquantized; their pages are given back
/// as the layers pass. `cancelled` through cx.cancel, with all finished layers kept; `invalid_argument` for a recipe
/// that this model cannot follow.
Status solve_layers(Context& cx, const model::Weights& weights, const Plan& plan,
                    std::span<const std::vector<int32_t>> chats, const LayerwiseOptions& options);

/// What was solved, read layer by layer. Views are valid until the next call that asks for another layer.
class SolvedLayers {
 public:
  SolvedLayers(Path work, const model::Weights& weights);

  /// nullptr for a module that was not solved.
  Result<const SolvedModule*> linear(const std::string& module);
  /// nullptr for a tensor that did not change.
  Result<const Tensor*> tensor(const std::string& name);

 private:
  Result<const LayerSolution*> layer_of(const std::string& name);

  Path work_;
  std::string prefix_;  // of the layers' names
  int64_t layers_ = 0, loaded_ = -1;
  LayerSolution solution_;
};

}  // namespace nibble::quantize

// Turns the linears of one site into what the checkpoint will hold: one tensor scale per fused group, then block
// scales, then codes.
#pragma once

#include <map>
#include <span>
#include <string>

#include "quantize/gptq.h"
#include "quantize/plan.h"
#include "quantize/recipe.h"
#include "quantize/sites.h"
#include "quantize/solution.h"
#include "quantize/strategy.h"

namespace nibble::quantize {

class SiteSolver {
 public:
  /// All references outlive this object.
  SiteSolver(Context& cx, const Plan& plan, const Recipe& recipe, const std::map<std::string, float>& input_amax);

  /// The plan's word on a module; nullptr for one that it does not know.
  const PlannedTensor* planned(const std::string& module) const;
  bool is_nvfp4(const Reader& reader) const;
  /// The static scale under which the readers of a site round their inputs to 4 bits; 0 where they do not.
  float input_scale(std::span<const Reader> readers) const;

  /// How block scales are chosen where the inputs have no say.
  Strategy data_free() const;
  /// Whether block scales or codes depend on the second moments of the inputs.
  bool needs_moments() const;

  /// Appends to the solution every reader that the plan quantizes. `hessian` [K,K] as in moments.h; empty without.
  Status solve(std::span<const Reader> readers, const Tensor& hessian, LayerSolution& solution);

 private:
  struct Member;
  Status solve_group(std::span<const Reader> group, const Tensor& hessian, const Tensor& blocks,
                     std::optional<GptqFactor>& factor, LayerSolution& solution);
  /// What quantizing a matrix alone, without a look at its inputs, makes of it.
  Status solve_fp8(const Reader& reader, LayerSolution& solution);
  float clip_ratio(std::span<const Member> members, float amax, const Tensor& hessian);
  void set_inputs(const Reader& reader, ops::Linear& linear) const;

  Context& cx_;
  const Recipe& recipe_;
  const std::map<std::string, float>& input_amax_;
  std::map<std::string, const PlannedTensor*> planned_;
};

}  // namespace nibble::quantize

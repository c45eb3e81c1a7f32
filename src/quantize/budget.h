// auto_mixed: one format per fused group so that the sum of sensitivities is smallest within a budget of bits.
#pragma once

#include <string>
#include <vector>

#include "io/json.h"
#include "quantize/knapsack.h"
#include "quantize/plan.h"
#include "quantize/sensitivity.h"

namespace nibble::quantize {

/// From cheap to dear. Unchanged costs what it takes in the source.
inline constexpr Format kMixedFormats[] = {Format::nvfp4, Format::fp8, Format::unchanged};

struct MixedChoice {
  std::vector<FormatGroup> groups;  // scores per kMixedFormats, monotone, the last one 0
  std::vector<Format> formats;      // per group
  double score = 0;                 // sum of the scores of what was chosen
  double bits = 0;                  // of a weight of the groups, on average, block scales included
  /// (bits, least sum of scores) of some budgets, from everything in four bits on.
  std::vector<std::pair<double, double>> front;
};

/// Bytes that a group takes in a file in this format, tensor scales aside.
int64_t stored_bytes(const FormatGroup& group, Format format);

/// What the groups may take together, in bytes. `plan` has them all in NVFP4. `invalid_argument` for a budget below
/// what everything else takes.
Result<int64_t> budget_bytes(const Plan& plan, const std::vector<FormatGroup>& groups, const Budget& budget);

/// Solves the knapsack exactly. `groups` come with the scores of NVFP4 and FP8.
Result<MixedChoice> choose_formats(std::vector<FormatGroup> groups, int64_t budget);

/// For PlanOptions::formats; NVFP4 and unchanged groups read unrounded inputs, or `inputs` where the plan says so.
std::map<std::string, FormatChoice> plan_formats(const MixedChoice& choice, Inputs nvfp4_inputs);

Json to_json(const MixedChoice& choice);

}  // namespace nibble::quantize

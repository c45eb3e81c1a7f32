// How much each group of linears suffers from each format: the scores that auto_mixed weighs against bits.
//
//   kl        sum over tokens of KL(unquantized || only this group in the format), over the whole vocabulary
//   gradient  sum over tokens and outputs of (g (y' - y))^2, y' the group's outputs in the format and g the gradient of
//             the cross entropy of the next token there: one forward and one backward pass for everything (the score of
//             nvidia-modelopt's auto_quantize)
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/weights.h"
#include "quantize/plan.h"

namespace nibble::quantize {

enum class Sensitivity : uint8_t { kl, gradient };

/// The linears of one fused group.
struct FormatGroup {
  std::string name;                  // fused_module() of its members, "lm_head" for the head
  std::vector<std::string> modules;  // in the order of the plan
  int64_t weights = 0, source_bytes = 0;
  std::vector<double> scores;  // per format that was asked for
};

/// The groups of a plan that quantizes everything that may be, in its order.
std::vector<FormatGroup> format_groups(const Plan& plan);

/// A linear in one of the formats; views valid until the next call.
using LinearInFormat = std::function<Result<ops::Linear>(const std::string& module, Format format)>;

/// Fills in the scores of `formats`. Weights are unquantized. `cancelled` through cx.cancel. Progress counts tokens.
Status measure_sensitivity(Context& cx, const model::Weights& weights, std::span<const std::vector<int32_t>> chats,
                           Sensitivity kind, std::span<const Format> formats, const LinearInFormat& in_format,
                           std::vector<FormatGroup>& groups, const Progress& progress);

}  // namespace nibble::quantize

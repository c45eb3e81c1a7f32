// Activations: what a model's linears do to their inputs, as its checkpoint says or as a user says instead.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "model/weights.h"

namespace nibble::checkpoint {

enum class Activations : uint8_t {
  as_stored,  // rounded where the checkpoint carries input scales
  a16,        // nowhere
  a4,         // before all NVFP4 weights with a static scale in the checkpoint
  a4_token,   // before all NVFP4 weights, every token under a scale of its own; needs no calibration
};

/// The words of --act: "a16", "a4", "a4-token".
std::optional<Activations> activations_named(std::string_view name);

/// Changes weights that were just loaded. FP8 weights keep what they have but in a16. `invalid_argument` with a hint
/// when there is nothing to round: no NVFP4 weights, or for a4 no scales.
Status set_activations(model::Weights& weights, Activations activations);

/// What is in force: "a16", or the roundings there are, joined with "+": "a4", "a4-token", "a8", "a4+a8".
std::string activations_of(const model::Weights& weights);

}  // namespace nibble::checkpoint

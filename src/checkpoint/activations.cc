#include "checkpoint/activations.h"

#include <vector>

namespace nibble::checkpoint {

using ops::InputRounding;

std::optional<Activations> activations_named(std::string_view name) {
  if (name == "a16") return Activations::a16;
  if (name == "a4") return Activations::a4;
  if (name == "a4-token") return Activations::a4_token;
  return {};
}

Status set_activations(model::Weights& weights, Activations activations) {
  if (activations == Activations::as_stored) return {};
  int64_t nvfp4 = 0, scaled = 0;
  weights.for_each_linear([&](std::string_view, ops::Linear& linear) {
    if (activations == Activations::a16) linear.inputs = InputRounding::none;
    if (linear.format != ops::WeightFormat::nvfp4) return;
    ++nvfp4;
    scaled += linear.input_scale > 0;
    if (activations == Activations::a4_token) linear.inputs = InputRounding::nvfp4_token;
    if (activations == Activations::a4 && linear.input_scale > 0) linear.inputs = InputRounding::nvfp4;
  });
  if (activations == Activations::a16) return {};
  if (nvfp4 == 0) {
    return invalid_argument("--act: expected NVFP4 weights whose inputs to round, got none")
        .with_hint("quantize the model first: nibble quantize");
  }
  if (activations == Activations::a4_token || scaled > 0) return {};
  return invalid_argument("--act a4: expected static input scales in the checkpoint, got none")
      .with_hint("calibrate: nibble quantize --calib, or --act a4-token");
}

std::string activations_of(const model::Weights& weights) {
  bool used[4] = {};
  weights.for_each_linear(
      [&](std::string_view, const ops::Linear& linear) { used[static_cast<size_t>(linear.inputs)] = true; });
  std::vector<const char*> names;
  if (used[static_cast<size_t>(InputRounding::nvfp4)]) names.push_back("a4");
  if (used[static_cast<size_t>(InputRounding::nvfp4_token)]) names.push_back("a4-token");
  if (used[static_cast<size_t>(InputRounding::fp8)]) names.push_back("a8");
  return names.empty() ? "a16" : fmt::format("{}", fmt::join(names, "+"));
}

}  // namespace nibble::checkpoint

// Quantization: what a checkpoint says about its four-bit modules, in the layout of NVIDIA's ModelOpt: config.json's
// quantization_config and, older and beside it, hf_quant_config.json.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::checkpoint {

struct Quantization {
  std::string algo;      // "NVFP4" (inputs rounded too), "W4A16_NVFP4" (weights only), or empty: full precision
  std::string producer;  // "modelopt 0.47.0", or empty
  std::vector<std::string> exclude;  // modules left in full precision, with * as wildcard

  bool quantized() const { return !algo.empty(); }
  /// Whether modules carry a static input_scale.
  bool rounds_inputs() const { return algo == "NVFP4"; }
  /// True when a pattern of `exclude` matches; "model." and "model.language_model." count as the same prefix.
  bool excludes(std::string_view module) const;
};

/// A pattern with '*' matches whole names, '*' standing for any characters, dots included. One without it matches the
/// name itself or a run of its dot-separated parts: "mtp" matches "mtp.fc", and not "smtp.fc".
bool matches_module(std::string_view pattern, std::string_view module);

/// Reads either source; both absent means full precision. `unsupported` for other methods and algorithms, `corrupt`
/// when the two disagree or have wrong types.
Result<Quantization> read_quantization(const Json& config, const std::optional<Json>& hf_quant_config);

}  // namespace nibble::checkpoint

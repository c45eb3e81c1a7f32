// Quantization: what a checkpoint says about its quantized modules. Two layouts say it: NVIDIA's ModelOpt in
// quantization_config of config.json and, older and beside it, hf_quant_config.json; compressed-tensors in
// quantization_config alone.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/compressed_tensors_config.h"
#include "checkpoint/stored_format.h"
#include "io/json.h"

namespace nibble::checkpoint {

struct Quantization {
  Layout layout = Layout::modelopt;
  std::string algo;      // ModelOpt's quant_algo or compressed-tensors' format; empty: full precision
  std::string producer;  // "modelopt 0.47.0", or empty

  /// ModelOpt: modules left in full precision, with * as wildcard.
  std::vector<std::string> exclude;
  /// ModelOpt's MIXED_PRECISION: what each module is, by its name under the text prefix. A module that is not listed is
  /// in full precision, and one that is listed is quantized even where `exclude` names it.
  std::map<std::string, StoredFormat, std::less<>> layers;

  CompressedTensorsConfig compressed;  // of that layout

  bool quantized() const { return !algo.empty(); }
  /// Whether all quantized modules carry a static input scale for 4-bit activations.
  bool rounds_inputs() const { return algo == "NVFP4"; }
  /// True when a pattern of `exclude` matches; "model." and "model.language_model." count as the same prefix.
  bool excludes(std::string_view module) const;
  /// How a linear is stored, by its name in the files.
  Result<StoredFormat> format_of(std::string_view module) const;
};

/// A pattern with '*' matches whole names, '*' standing for any characters, dots included. One without it matches the
/// name itself or a run of its dot-separated parts: "mtp" matches "mtp.fc", and not "smtp.fc".
bool matches_module(std::string_view pattern, std::string_view module);

/// Reads either source; both absent means full precision. `unsupported` for other methods and algorithms, `corrupt`
/// when the two disagree or have wrong types. Beside the compressed-tensors layout hf_quant_config.json says nothing:
/// converters leave it lying there.
Result<Quantization> read_quantization(const Json& config, const std::optional<Json>& hf_quant_config);

}  // namespace nibble::checkpoint

// The plan: which tensors of a checkpoint become NVFP4, which stay, and why. It is made from names, dtypes and shapes
// alone, before any weight is read, and holds for both tensor prefixes (model.* and model.language_model.*).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/safetensors.h"

namespace nibble::quantize {

enum class Format : uint8_t { unchanged, nvfp4 };

struct PlannedTensor {
  const TensorInfo* source = nullptr;
  Format format = Format::unchanged;
  std::string module;  // the tensor's name without ".weight"; empty for tensors that are no weight
  std::string reason;  // one phrase: "linear of the main stack", "norm", "excluded by *k_proj*", …
  uint64_t bytes = 0;  // in the output, scales included
  int64_t group = -1;  // quantized tensors of one number share their tensor scale

  bool quantized() const { return format == Format::nvfp4; }
};

struct PlanOptions {
  /// What these match stays as it is. Patterns as in checkpoint/quantization.h (matches_module), against the tensor
  /// name and the module name; "model." and "model.language_model." count as the same prefix. One that matches nothing
  /// is an error.
  std::vector<std::string> exclude;
  bool quantize = true;           // false: everything stays as it is
  bool tied = false;              // lm_head is the embedding
  bool quantized_inputs = false;  // linears get an input_scale
};

struct Plan {
  std::vector<PlannedTensor> tensors;  // in the order of the source
  int64_t groups = 0;
  std::vector<std::string> exclude_modules;  // for the config files: sorted; mtp and the vision tower as wildcards

  uint64_t source_bytes = 0, bytes = 0;
  uint64_t bytes_per_token = 0;  // what model::bytes_per_token will be: the matrices that one token reads
  int64_t quantized = 0;         // number of tensors
};

/// Quantized are q, k, v, o, gate, up, down, in_proj_qkv, in_proj_z and out_proj of the main stack, two-dimensional, in
/// a float type, with a last dimension that is a multiple of 16. When one linear of a fused group (fused_linears.h)
/// cannot be or is excluded, the whole group stays, because servers refuse mixed groups.
/// The infos must outlive the plan. `invalid_argument`: an exclude that matches nothing, or nothing left to quantize.
Result<Plan> make_plan(std::span<const TensorInfo* const> tensors, const PlanOptions& options);

}  // namespace nibble::quantize

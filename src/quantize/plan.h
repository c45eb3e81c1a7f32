// The plan: which tensors of a checkpoint become NVFP4 or FP8, which stay, and why. It is made from names, dtypes and
// shapes alone, before any weight is read, and holds for both tensor prefixes (model.* and model.language_model.*).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/quantized_modules.h"
#include "io/safetensors.h"
#include "quantize/recipe.h"

namespace nibble::quantize {

struct PlannedTensor {
  const TensorInfo* source = nullptr;  // what it is made from; for the head of an untied model the embedding
  std::string name;                    // in the output
  std::string module;                  // the name without ".weight"; empty for tensors that are no weight
  Format format = Format::unchanged;
  Inputs inputs = Inputs::a16;
  int64_t rank = 0;    // > 0: a low-rank branch of that rank stands beside the codes (svdquant)
  std::string reason;  // one phrase: "linear of the main stack", "norm", "excluded by *k_proj*", …
  uint64_t bytes = 0;  // in the output, scales included
  int64_t group = -1;  // quantized tensors of one number share input scale, and tensor scale if NVFP4

  bool quantizable = false;  // whether some recipe could quantize it
  bool quantized() const { return format != Format::unchanged; }
};

/// What one linear, or the linears of one fused group, become.
struct FormatChoice {
  Format format = Format::unchanged;
  Inputs inputs = Inputs::a16;
  bool operator==(const FormatChoice&) const = default;
};

struct PlanOptions {
  std::vector<Rule> rules = {};
  /// Patterns (checkpoint/name_pattern.h) of what stays as it is, whatever the rules say.
  std::vector<std::string> exclude = {};
  /// Overrides rules, not excludes: by fused_module() of the source's module names ("lm_head" for the head).
  std::map<std::string, FormatChoice> formats = {};
  bool tied = false;   // lm_head is the embedding
  bool untie = false;  // where it is to be quantized, it becomes a tensor of its own
  int64_t rank = 0;    // svdquant: of the branches beside NVFP4 linears of the main stack; a smaller matrix limits it
};

struct Plan {
  std::vector<PlannedTensor> tensors;  // in the order of the source; a head that was untied is the last
  int64_t groups = 0;
  bool untied = false;
  checkpoint::QuantizedModules modules;  // for the config files

  uint64_t source_bytes = 0, bytes = 0;
  uint64_t bytes_per_token = 0;  // what model::bytes_per_token will be: the matrices that one token reads
  int64_t quantized = 0;         // number of tensors
  /// Average bits of a weight, block scales and low-rank branches included: over the linears of the main stack, and
  /// over those and the output head.
  double effective_bits = 0, effective_bits_with_head = 0;
};

/// Rules reach q, k, v, o, gate, up, down, in_proj_qkv, in_proj_z and out_proj of the main stack; lm_head, in_proj_a,
/// in_proj_b, routers and gates of experts only where a rule names them (spells_module). All must be two-dimensional,
/// in a float type, for NVFP4 with a last dimension that is a multiple of 16. When one linear of a fused group
/// (fused_linears.h) cannot be or is excluded, the whole group stays, because servers refuse mixed groups.
/// The infos must outlive the plan. `invalid_argument`: an exclude or rule that matches nothing, or only what cannot be
/// quantized; rules that give the linears of a fused group different formats; a rule for a tied head without `untie`; a
/// format in `formats` for no group.
Result<Plan> make_plan(std::span<const TensorInfo* const> tensors, const PlanOptions& options);

}  // namespace nibble::quantize

// Adapter: a LoRA adapter in PEFT's folder layout, and its merge into full-precision weights.
//
//   adapter_config.json         see adapter_config.h
//   adapter_model.safetensors   F32, BF16 or F16, for each adapted module of the model that was trained:
//     base_model.model.MODULE.lora_A.weight  [r,in]     also written as lora_A.default.weight
//     base_model.model.MODULE.lora_B.weight  [out,r]
//
//   W' = round(W + scale * B A)   in f32, k ascending as in ops::linear, one rounding to the type that W is stored in
//
// MODULE begins with "model." or "model.language_model.", whichever way the base folder has it. A module of the vision
// tower merges like any other when a folder is written, and is left aside in a model in memory, which has no tower.
// Adapters merge before anything else: 4-bit weights are refused.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "checkpoint/adapter_config.h"
#include "checkpoint/load.h"
#include "io/safetensors.h"

namespace nibble::checkpoint {

struct AdaptedModule {
  std::string written;  // its name in the adapter, without "base_model.model."
  const TensorInfo *a = nullptr, *b = nullptr;
  float scale = 0;

  int64_t rank() const { return a->shape[0]; }
  int64_t in() const { return a->shape[1]; }
  int64_t out() const { return b->shape[0]; }
};

/// Immutable after open; all methods are safe from any thread, each with its own pool. The weights stay in the mapped
/// file until they are merged.
class Adapter {
 public:
  /// Everything about the folder that shows without a base: `not_found` when it or one of its two files is not there;
  /// `unsupported` for tensors and fields beyond plain LoRA; `corrupt` for an A without its B, ranks that differ from
  /// the config's, modules that target_modules does not name and names in it that have no tensors.
  static Result<Adapter> open(const Path& folder);

  /// The last part of the folder's path.
  const std::string& name() const { return name_; }
  const AdapterConfig& config() const { return config_; }
  /// 8 hex digits of SHA-256 over the config and the tensors' header.
  const std::string& fingerprint() const { return fingerprint_; }
  /// By the name under the text prefix ("model.layers.0.mlp.up_proj").
  const std::map<std::string, AdaptedModule, std::less<>>& modules() const { return modules_; }
  /// nullptr when the module is not adapted. Either prefix.
  const AdaptedModule* find(std::string_view module) const;

  /// Whether it belongs to this model: `invalid_argument` when a module is not there or has another shape, for 4-bit
  /// weights and for a head that is the embedding; `corrupt` when target_modules names a module that has no tensors.
  Status check_base(const model::Weights& base) const;

  /// W' of a tensor of the base, with its dtype and shape; an empty view when the tensor is not adapted. `corrupt` for
  /// values that are not finite, `invalid_argument` for a tensor that does not fit.
  Result<OwnedTensor> merged(ThreadPool& pool, std::string_view tensor_name, const Tensor& base) const;

 private:
  Adapter(AdapterConfig config, Safetensors file) : config_(std::move(config)), file_(std::move(file)) {}
  Status add_tensor(const TensorInfo& info);
  Status check_modules();
  Status check_shape(std::string_view module, const AdaptedModule& adapted, const Tensor& base) const;
  Status wrong_base(std::string message) const;

  std::string name_, fingerprint_;
  AdapterConfig config_;
  Safetensors file_;
  std::map<std::string, AdaptedModule, std::less<>> modules_;  // pointers into file_, whose tensors never move
  bool wrapped_ = false;                                       // its text modules begin with "model.language_model."
};

/// Replaces every adapted Linear by its merged form in memory of the model's own (F16 files: in f32, as they were
/// loaded). The fingerprint becomes one of both, and `adapter` its name. Errors: check_base's and merged's; the model
/// is then half merged and of no use.
Status merge_adapter(ThreadPool& pool, LoadedModel& model, const Adapter& adapter);

/// The tensors of the folder `base` with the adapter merged in, one at a time: a tensor in the file's own type, valid
/// until the next call, or an empty one where the file's own stands. For what streams a folder. `pool` is borrowed.
using MergedTensors = std::function<Result<Tensor>(const TensorInfo&)>;
Result<MergedTensors> merged_tensors(ThreadPool& pool, std::shared_ptr<const Adapter> adapter, const Path& base);

}  // namespace nibble::checkpoint

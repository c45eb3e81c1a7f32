// AdapterConfig: adapter_config.json of a LoRA adapter, as PEFT and what builds on it (Unsloth) write it.
//
// Read are r, lora_alpha, use_rslora, rank_pattern, alpha_pattern, target_modules, layers_to_transform, exclude_modules
// and base_model_name_or_path. Fields about training alone (dropout, task type, versions) are left aside. Everything
// else must be switched off (null, false, empty): DoRA, biases, modules_to_save, layer replication, initialisations
// that change the base weights, and fields that nibble has never seen. What is not is `unsupported` by name.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "checkpoint/module_pattern.h"
#include "io/json.h"

namespace nibble::checkpoint {

constexpr const char* kAdapterConfigFile = "adapter_config.json";
constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";

class AdapterConfig {
 public:
  /// Total over all documents. Errors name the field.
  static Result<AdapterConfig> parse(const Json& json);

  /// Where the adapter was trained, in its author's words. Often a path of another machine; may be empty.
  const std::string& base_model() const { return base_model_; }
  /// target_modules where it is a list; empty where it is a pattern or "all-linear".
  const std::vector<std::string>& targets() const { return targets_; }
  /// Whether every module that target_modules names has an adapter: no field narrows the choice.
  bool complete() const { return complete_; }

  /// `module` by its name in the adapter, without "base_model.model.".
  Result<bool> is_target(std::string_view module) const;
  Result<int64_t> rank_of(std::string_view module) const;
  /// The factor of B A: alpha / rank, with use_rslora alpha / sqrt(rank).
  Result<double> scale_of(std::string_view module) const;

 private:
  AdapterConfig() = default;

  template <class T>
  using Patterns = std::vector<std::pair<ModulePattern, T>>;  // the first that matches counts

  int64_t rank_ = 0;
  double alpha_ = 0;
  bool rslora_ = false, all_linear_ = false, complete_ = true;
  std::string base_model_;
  std::vector<std::string> targets_;
  std::vector<ModulePattern> target_pattern_;  // at most one
  Patterns<int64_t> rank_pattern_;
  Patterns<double> alpha_pattern_;
};

/// True when `module` is `target` or ends with its components: "self_attn.q_proj" names
/// "model.layers.3.self_attn.q_proj".
bool names_module(std::string_view target, std::string_view module);

}  // namespace nibble::checkpoint

#include "checkpoint/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace nibble::checkpoint {
namespace {

constexpr int64_t kMaxRank = 65536;
constexpr size_t kMaxPatterns = 4096;
constexpr std::string_view kLoraOnly = "nibble merges plain LoRA: merge this adapter with PEFT and use the result";

// Fields that say how the adapter was trained, or who wrote it, and leave the product as it is.
constexpr std::string_view kAside[] = {"task_type",      "inference_mode", "lora_dropout",  "auto_mapping",
                                       "peft_version",   "revision",       "megatron_core", "eva_config",
                                       "corda_config",   "runtime_config", "unsloth_fixed", "qalora_group_size",
                                       "layers_pattern", "loftq_config"};

// Fields that are read below.
constexpr std::string_view kRead[] = {"peft_type",           "r",
                                      "lora_alpha",          "use_rslora",
                                      "rank_pattern",        "alpha_pattern",
                                      "target_modules",      "bias",
                                      "init_lora_weights",   "base_model_name_or_path",
                                      "layers_to_transform", "exclude_modules"};

// Initialisations that leave the base weights alone. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract something from
// them, so B A belongs to other weights than those of the base folder.
constexpr std::string_view kPureInits[] = {"gaussian", "eva", "orthogonal"};

bool among(std::string_view word, std::span<const std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string shown(const Json& value) {
  constexpr size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return text;
}

Status wrong(const char* field, const char* expected, const Json& got) {
  return corrupt("{}: expected {}, got {} ({})", field, expected, shown(got), kAdapterConfigFile);
}

bool is_off(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  return value.is_null() ||
         ((value.is_array() || value.is_object() || value.is_string()) && (value.empty() || value == ""));
}

// The field's value, or null where it is absent.
const Json& field(const Json& json, const char* name) {
  static const Json kNull;
  const auto at = json.find(name);
  return at == json.end() ? kNull : *at;
}

Result<int64_t> rank_in(const char* name, const Json& value) {
  const bool fits = value.is_number_integer() && value >= 1 && value <= kMaxRank;
  if (!fits) return wrong(name, "a rank from 1 to 65536", value);
  return value.get<int64_t>();
}

Result<double> alpha_in(const char* name, const Json& value) {
  if (!value.is_number() || !(std::abs(value.get<double>()) <= 1e6)) {
    return wrong(name, "a number up to 1e6", value);
  }
  return value.get<double>();
}

// {"name or expression": value}: PEFT matches an expression against the end of a module's path.
template <class T>
Result<std::vector<std::pair<ModulePattern, T>>> patterns_in(const Json& json, const char* name,
                                                             Result<T> (*value_in)(const char*, const Json&)) {
  const Json& object = field(json, name);
  std::vector<std::pair<ModulePattern, T>> list;
  if (object.is_null()) return list;
  if (!object.is_object() || object.size() > kMaxPatterns)
    return wrong(name, "an object of at most 4096 entries", object);
  for (const auto& [key, value] : object.items()) {
    NIBBLE_TRY(pattern, ModulePattern::compile("(.*\\.)?(" + key + ")", name));
    NIBBLE_TRY(number, value_in(name, value));
    list.emplace_back(pattern, number);
  }
  return list;
}

Status check_supported(const Json& json) {
  if (!json.is_object()) return corrupt("{}: expected an object, got {}", kAdapterConfigFile, json.type_name());
  if (field(json, "peft_type") != "LORA") {
    return unsupported("peft_type: expected LORA, got {} ({})", shown(field(json, "peft_type")), kAdapterConfigFile)
        .with_hint(std::string(kLoraOnly));
  }
  const Json& bias = field(json, "bias");
  if (!bias.is_null() && bias != "none") {
    return unsupported("bias: expected none, got {} ({})", shown(bias), kAdapterConfigFile)
        .with_hint("linears of this family have no bias");
  }
  const Json& init = field(json, "init_lora_weights");
  if (!init.is_null() && !init.is_boolean() && !(init.is_string() && among(init.get<std::string>(), kPureInits))) {
    return unsupported("init_lora_weights: expected an initialisation that keeps the base weights, got {} ({})",
                       shown(init), kAdapterConfigFile)
        .with_hint("save it again with PEFT's path_initial_model_for_weight_conversion");
  }
  for (const auto& [name, value] : json.items()) {
    if (among(name, kAside) || among(name, kRead) || is_off(value)) continue;
    return unsupported("{}: expected it to be off, got {} ({})", name, shown(value), kAdapterConfigFile)
        .with_hint(std::string(kLoraOnly));
  }
  return {};
}

}  // namespace

bool names_module(std::string_view target, std::string_view module) {
  if (!module.ends_with(target) || target.empty()) return false;
  return module.size() == target.size() || module[module.size() - target.size() - 1] == '.';
}

Result<AdapterConfig> AdapterConfig::parse(const Json& json) {
  NIBBLE_RETURN_IF_ERROR(check_supported(json));
  AdapterConfig out;
  NIBBLE_TRY(rank, rank_in("r", field(json, "r")));
  NIBBLE_TRY(alpha, alpha_in("lora_alpha", field(json, "lora_alpha")));
  NIBBLE_TRY(ranks, patterns_in<int64_t>(json, "rank_pattern", &rank_in));
  NIBBLE_TRY(alphas, patterns_in<double>(json, "alpha_pattern", &alpha_in));
  out.rank_ = rank;
  out.alpha_ = alpha;
  out.rank_pattern_ = std::move(ranks);
  out.alpha_pattern_ = std::move(alphas);
  const Json& rslora = field(json, "use_rslora");
  if (!rslora.is_null() && !rslora.is_boolean()) return wrong("use_rslora", "true or false", rslora);
  out.rslora_ = rslora == true;
  const Json& base = field(json, "base_model_name_or_path");
  if (!base.is_null() && !base.is_string()) return wrong("base_model_name_or_path", "a string", base);
  if (base.is_string()) out.base_model_ = base.get<std::string>();
  out.complete_ = field(json, "layers_to_transform").is_null() && is_off(field(json, "exclude_modules"));

  const Json& targets = field(json, "target_modules");
  if (targets == "all-linear") {
    out.all_linear_ = true;
  } else if (targets.is_string()) {
    NIBBLE_TRY(pattern, ModulePattern::compile(targets.get<std::string>(), "target_modules"));
    out.target_pattern_.push_back(pattern);
  } else {
    if (!targets.is_array() || targets.empty() || targets.size() > kMaxPatterns) {
      return wrong("target_modules", "a list of names, a pattern or all-linear", targets);
    }
    for (const Json& target : targets) {
      if (!target.is_string() || target == "") return wrong("target_modules", "names of modules", target);
      out.targets_.push_back(target.get<std::string>());
    }
  }
  return out;
}

Result<bool> AdapterConfig::is_target(std::string_view module) const {
  if (all_linear_) return module != "lm_head";
  if (!target_pattern_.empty()) return target_pattern_.front().matches(module);
  return std::any_of(targets_.begin(), targets_.end(),
                     [&](const auto& target) { return names_module(target, module); });
}

Result<int64_t> AdapterConfig::rank_of(std::string_view module) const {
  for (const auto& [pattern, rank] : rank_pattern_) {
    NIBBLE_TRY(matches, pattern.matches(module));
    if (matches) return rank;
  }
  return rank_;
}

Result<double> AdapterConfig::scale_of(std::string_view module) const {
  NIBBLE_TRY(rank, rank_of(module));
  double alpha = alpha_;
  for (const auto& [pattern, value] : alpha_pattern_) {
    NIBBLE_TRY(matches, pattern.matches(module));
    if (!matches) continue;
    alpha = value;
    break;
  }
  return alpha / (rslora_ ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
}

}  // namespace nibble::checkpoint

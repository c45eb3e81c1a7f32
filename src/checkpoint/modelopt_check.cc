#include "checkpoint/modelopt_check.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "checkpoint/folder_check.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/quantization.h"
#include "io/json.h"
#include "model/config.h"
#include "model/names.h"

namespace nibble::checkpoint {
namespace {

constexpr std::string_view kMixed = "MIXED_PRECISION";

// What one of the two files says.
struct Claims {
  std::string algo;
  std::map<std::string, std::string> layers;  // quantized_layers: module -> algo
  std::set<std::string> exclude;
  bool fp8_kv = false;
  std::map<std::string, bool> rounds_inputs;  // of config_groups: target -> has input_activations

  bool mixed() const { return algo == kMixed; }

  // nullptr: the module is not quantized.
  const std::string* algo_of(const std::string& module) const {
    const auto layer = layers.find(module);
    return layer == layers.end() ? nullptr : &layer->second;
  }

  bool excludes(const std::string& module) const {
    const std::string name = model::canonical_module(module);
    return std::any_of(exclude.begin(), exclude.end(), [&](const std::string& pattern) {
      return matches_module(model::canonical_module(pattern), name);
    });
  }

  // Whether the inputs of a module of that algorithm have static scales; unset where nobody says.
  std::optional<bool> inputs_of(const std::string& module, const std::string& algo) const {
    for (const std::string& target : {module, std::string("Linear")}) {
      const auto group = rounds_inputs.find(target);
      if (group != rounds_inputs.end()) return group->second;
    }
    if (algo == "NVFP4") return true;
    if (algo == "W4A16_NVFP4") return false;
    return {};
  }
};

Result<std::string> text(const Json& object, const char* key, std::string_view where) {
  const Json* value = find_value(object, key);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return corrupt("{}: expected a string, got {} ({})", key, value->type_name(), where);
  return value->get<std::string>();
}

Status read_names(const Json& object, const char* key, std::string_view where, std::set<std::string>& out) {
  const Json* list = find_value(object, key);
  if (list == nullptr) return {};
  if (!list->is_array()) return corrupt("{}: expected a list of names, got {} ({})", key, list->type_name(), where);
  for (const Json& item : *list) {
    if (!item.is_string()) return corrupt("{}: expected a list of names, got {} ({})", key, item.type_name(), where);
    out.insert(item.get<std::string>());
  }
  return {};
}

Status read_layers(const Json& section, std::string_view where, Claims& claims) {
  const Json* layers = find_value(section, "quantized_layers");
  if (layers == nullptr) return {};
  if (!layers->is_object()) {
    return corrupt("quantized_layers: expected an object, got {} ({})", layers->type_name(), where);
  }
  for (const auto& item : layers->items()) {
    NIBBLE_TRY(algo, text(item.value(), "quant_algo", where));
    claims.layers[item.key()] = std::move(algo);
  }
  return {};
}

Status read_groups(const Json& section, std::string_view where, Claims& claims) {
  const Json* groups = find_value(section, "config_groups");
  if (groups == nullptr || !groups->is_object()) return {};
  for (const auto& item : groups->items()) {
    std::set<std::string> targets;
    NIBBLE_RETURN_IF_ERROR(read_names(item.value(), "targets", where, targets));
    const bool inputs = find_value(item.value(), "input_activations") != nullptr;
    for (const std::string& target : targets) claims.rounds_inputs[target] = inputs;
  }
  return {};
}

Result<Claims> read_claims(const Json& section, const char* exclude_key, std::string_view where) {
  if (!section.is_object()) return corrupt("quantization: expected an object, got {} ({})", section.type_name(), where);
  Claims claims;
  NIBBLE_TRY(algo, text(section, "quant_algo", where));
  claims.algo = std::move(algo);
  NIBBLE_RETURN_IF_ERROR(read_layers(section, where, claims));
  NIBBLE_RETURN_IF_ERROR(read_names(section, exclude_key, where, claims.exclude));
  NIBBLE_RETURN_IF_ERROR(read_groups(section, where, claims));
  claims.fp8_kv =
      find_value(section, "kv_cache_quant_algo") != nullptr || find_value(section, "kv_cache_scheme") != nullptr;
  return claims;
}

Result<Json> read_json(const Path& file) {
  NIBBLE_TRY(contents, read_file(file));
  return parse_json(contents, file.filename().string());
}

// What both files say. The reader would unite their excludes; here a difference is a fault.
Result<Claims> read_agreeing_claims(const Path& folder, const Json& config) {
  NIBBLE_TRY(hf_json, read_json(folder / kHfQuantConfigFile));
  const Json* hf_section = find_value(hf_json, "quantization");
  const Json* section = find_value(config, "quantization_config");
  NIBBLE_TRY(hf,
             read_claims(hf_section == nullptr ? Json::object() : *hf_section, "exclude_modules", kHfQuantConfigFile));
  NIBBLE_TRY(embedded, read_claims(section == nullptr ? Json::object() : *section, "ignore", "config.json"));
  if (hf.algo.empty() || hf.algo != embedded.algo || hf.exclude != embedded.exclude || hf.layers != embedded.layers ||
      hf.fp8_kv != embedded.fp8_kv) {
    return corrupt("{}: expected the quant_algo, layers, excludes and cache of config.json, got others",
                   kHfQuantConfigFile);
  }
  return std::move(embedded);
}

bool is_fp8_algo(const std::string& algo) {
  return algo.starts_with("FP8");
}

void check_module(FolderCheck& check, const Claims& claims, const StoredModule& module) {
  const bool excluded = claims.excludes(module.name);
  const std::string* algo = claims.mixed() ? claims.algo_of(module.name) : &claims.algo;
  if (!module.quantized()) {
    if (!excluded) check.problem("{}: unquantized, but no entry of exclude_modules matches it", module.name);
    if (claims.mixed() && algo != nullptr) {
      check.problem("{}: unquantized, but quantized_layers says {}", module.name, *algo);
    }
    return;
  }
  if (excluded) check.problem("{}: quantized, but an entry of exclude_modules matches it", module.name);
  if (algo == nullptr) return check.problem("{}: quantized, but quantized_layers does not name it", module.name);
  if (is_fp8_algo(*algo) != module.fp8()) {
    return check.problem("{}: expected {}, as the config says, got {}", module.name, *algo,
                         module.weight->info->text());
  }
  if ((*algo == "NVFP4_SVD") != (module.low_rank_a != nullptr)) {
    check.problem("{}: expected low-rank factors exactly with NVFP4_SVD, got {}", module.name, *algo);
  }
  check.check_tensors(module, claims.inputs_of(module.name, *algo));
}

Result<std::vector<Status>> find_problems(const Path& folder, const SafetensorsFolder* source) {
  NIBBLE_TRY(json, read_json(folder / "config.json"));
  NIBBLE_TRY(config, model::parse_config(json));
  NIBBLE_TRY(claims, read_agreeing_claims(folder, json));
  NIBBLE_TRY(tensors, SafetensorsFolder::open(folder));
  FolderCheck check(tensors, Layout::modelopt);
  for (const StoredModule& module : check.modules()) check_module(check, claims, module);
  for (const auto& [module, algo] : claims.layers) {
    if (check.find(module) == nullptr) check.problem("{}: expected a {} weight, got none", module, algo);
  }
  check.check_fused();
  check.check_head(config);
  if (source != nullptr) check.check_against(*source);
  return check.take();
}

}  // namespace

std::vector<Status> modelopt_problems(const Path& folder, const SafetensorsFolder* source) {
  Result<std::vector<Status>> problems = find_problems(folder, source);
  if (!problems.ok()) return {problems.status()};
  return std::move(problems).value();
}

}  // namespace nibble::checkpoint

#include "checkpoint/modelopt_check.h"

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

// Both files, which say the same of formats; config.json alone says of each group whether inputs have static scales.
struct Claims {
  Quantization quantization;
  std::map<std::string, bool> rounds_inputs;  // target of a group -> has input_activations

  // nullptr: the module is not quantized, as quantized_layers has it.
  const StoredFormat* layer(const std::string& module) const {
    const auto layer = quantization.layers.find(model::canonical_module(module));
    return layer == quantization.layers.end() ? nullptr : &layer->second;
  }
  bool mixed() const { return !quantization.layers.empty(); }

  // Whether the inputs of a module of that format have static scales; unset where nobody says.
  std::optional<bool> inputs_of(const std::string& module, const StoredFormat& format) const {
    for (const std::string& target : {module, std::string("Linear")}) {
      const auto group = rounds_inputs.find(target);
      if (group != rounds_inputs.end()) return group->second;
    }
    if (format.inputs_optional) return {};
    return format.inputs != Inputs::a16;
  }
};

std::map<std::string, bool> read_groups(const Json& config) {
  std::map<std::string, bool> out;
  const Json* section = find_value(config, "quantization_config");
  const Json* groups = section != nullptr ? find_value(*section, "config_groups") : nullptr;
  if (groups == nullptr || !groups->is_object()) return out;
  for (const Json& group : *groups) {
    const Json* targets = group.is_object() ? find_value(group, "targets") : nullptr;
    if (targets == nullptr || !targets->is_array()) continue;
    for (const Json& target : *targets) {
      if (target.is_string()) out[target.get<std::string>()] = find_value(group, "input_activations") != nullptr;
    }
  }
  return out;
}

bool has_fp8_cache(const Json& file, const char* section_key) {
  const Json* section = find_value(file, section_key);
  return section != nullptr &&
         (find_value(*section, "kv_cache_quant_algo") != nullptr || find_value(*section, "kv_cache_scheme") != nullptr);
}

Result<Json> read_json(const Path& file) {
  NIBBLE_TRY(contents, read_file(file));
  return parse_json(contents, file.filename().string());
}

// What both files say. The reader would unite their excludes; here a difference is a fault.
Result<Claims> read_agreeing_claims(const Path& folder, const Json& config) {
  NIBBLE_TRY(hf_json, read_json(folder / kHfQuantConfigFile));
  NIBBLE_TRY(embedded, read_quantization(config, {}));
  NIBBLE_TRY(hf, read_quantization(Json::object(), hf_json));
  const auto excludes = [](const Quantization& quantization) {
    return std::set<std::string>(quantization.exclude.begin(), quantization.exclude.end());
  };
  if (!hf.quantized() || hf.algo != embedded.algo || excludes(hf) != excludes(embedded) ||
      hf.layers != embedded.layers ||
      has_fp8_cache(hf_json, "quantization") != has_fp8_cache(config, "quantization_config")) {
    return corrupt("{}: expected the quant_algo, layers, excludes and cache of config.json, got others",
                   kHfQuantConfigFile);
  }
  return Claims{std::move(embedded), read_groups(config)};
}

void check_module(FolderCheck& check, const Claims& claims, const StoredModule& module) {
  const bool excluded = claims.quantization.excludes(module.name);
  const StoredFormat* layer = claims.layer(module.name);
  if (!module.quantized()) {
    if (!excluded) check.problem("{}: unquantized, but no entry of exclude_modules matches it", module.name);
    if (layer != nullptr) check.problem("{}: unquantized, but quantized_layers says {}", module.name, layer->algo);
    return;
  }
  if (excluded) return check.problem("{}: quantized, but an entry of exclude_modules matches it", module.name);
  if (claims.mixed() && layer == nullptr) {
    return check.problem("{}: quantized, but quantized_layers does not name it", module.name);
  }
  const Result<StoredFormat> format = claims.quantization.format_of(module.name);
  if (!format.ok()) return check.problem("{}: {}", module.name, format.status().message());
  if ((format->format != Format::nvfp4) != module.fp8()) {
    return check.problem("{}: expected {}, as the config says, got {}", module.name, format->algo,
                         module.weight->info->text());
  }
  if (format->low_rank != (module.low_rank_a != nullptr)) {
    check.problem("{}: expected low-rank factors exactly with NVFP4_SVD, got {}", module.name, format->algo);
  }
  check.check_tensors(module, claims.inputs_of(module.name, *format));
}

Result<std::vector<Status>> find_problems(const Path& folder, const SafetensorsFolder* source) {
  NIBBLE_TRY(json, read_json(folder / "config.json"));
  NIBBLE_TRY(config, model::parse_config(json));
  NIBBLE_TRY(claims, read_agreeing_claims(folder, json));
  NIBBLE_TRY(tensors, SafetensorsFolder::open(folder));
  FolderCheck check(tensors, Layout::modelopt);
  for (const StoredModule& module : check.modules()) check_module(check, claims, module);
  std::set<std::string> names;
  for (const StoredModule& module : check.modules()) names.insert(model::canonical_module(module.name));
  for (const auto& [module, format] : claims.quantization.layers) {
    if (!names.contains(module)) check.problem("{}: expected a {} weight, got none", module, format.algo);
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

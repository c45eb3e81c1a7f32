#include "checkpoint/compressed_tensors_check.h"

#include <algorithm>
#include <optional>
#include <string>

#include "checkpoint/folder_check.h"
#include "checkpoint/module_pattern.h"
#include "io/json.h"
#include "model/config.h"

namespace nibble::checkpoint {
namespace {

// Exact names, regular expressions that match from the name's start ("re:…"), and the class "Linear".
struct Targets {
  std::vector<std::string> names;
  std::vector<ModulePattern> patterns;
  bool linear = false;

  Result<bool> match(const std::string& module) const {
    if (std::find(names.begin(), names.end(), module) != names.end()) return true;
    for (const ModulePattern& pattern : patterns) {
      NIBBLE_TRY(matches, pattern.matches(module));
      if (matches) return true;
    }
    return linear;
  }
};

struct Group {
  Targets targets;
  bool four_bits = false, inputs = false;
};

struct Claims {
  std::vector<Group> groups;
  Targets ignore;

  // nullptr: dense.
  Result<const Group*> group_of(const std::string& module) const {
    NIBBLE_TRY(ignored, ignore.match(module));
    if (ignored) return nullptr;
    for (const Group& group : groups) {
      NIBBLE_TRY(matches, group.targets.match(module));
      if (matches) return &group;
    }
    return nullptr;
  }
};

Result<Targets> read_targets(const Json& object, const char* key) {
  Targets targets;
  const Json* list = find_value(object, key);
  if (list == nullptr) return targets;
  if (!list->is_array()) return corrupt("{}: expected a list of names, got {}", key, list->type_name());
  for (const Json& item : *list) {
    if (!item.is_string()) return corrupt("{}: expected a list of names, got {}", key, item.type_name());
    const auto& text = item.get_ref<const std::string&>();
    if (text == "Linear") {
      targets.linear = true;
    } else if (text.starts_with("re:")) {
      NIBBLE_TRY(pattern, ModulePattern::compile("(?:" + text.substr(3) + ").*", key));
      targets.patterns.push_back(std::move(pattern));
    } else {
      targets.names.push_back(text);
    }
  }
  return targets;
}

Result<Group> read_group(const std::string& name, const Json& json) {
  if (!json.is_object()) return corrupt("config_groups: {}: expected an object, got {}", name, json.type_name());
  const Json* weights = find_value(json, "weights");
  const Json* bits = weights != nullptr && weights->is_object() ? find_value(*weights, "num_bits") : nullptr;
  if (bits == nullptr || (*bits != 4 && *bits != 8)) {
    return corrupt("config_groups: {}: weights: num_bits: expected 4 or 8, got {}", name,
                   bits == nullptr ? "none" : bits->dump());
  }
  Group group;
  NIBBLE_TRY(targets, read_targets(json, "targets"));
  group.targets = std::move(targets);
  group.four_bits = *bits == 4;
  group.inputs = find_value(json, "input_activations") != nullptr;
  return group;
}

Result<Claims> read_claims(const Json& config) {
  const Json* section = find_value(config, "quantization_config");
  const Json* method = section != nullptr && section->is_object() ? find_value(*section, "quant_method") : nullptr;
  if (method == nullptr || *method != "compressed-tensors") {
    return corrupt("quant_method: expected compressed-tensors, got {}", method == nullptr ? "none" : method->dump());
  }
  const Json* groups = find_value(*section, "config_groups");
  if (groups == nullptr || !groups->is_object()) return corrupt("config_groups: expected an object, got none");
  Claims claims;
  for (const auto& item : groups->items()) {
    NIBBLE_TRY(group, read_group(item.key(), item.value()));
    claims.groups.push_back(std::move(group));
  }
  NIBBLE_TRY(ignore, read_targets(*section, "ignore"));
  claims.ignore = std::move(ignore);
  return claims;
}

Status check_module(FolderCheck& check, const Claims& claims, const StoredModule& module) {
  NIBBLE_TRY(group, claims.group_of(module.name));
  if (!module.quantized()) {
    // Embeddings and convolutions are no "Linear".
    const bool linear = module.weight->info->shape.size() == 2 && !module.name.ends_with("embed_tokens");
    if (group != nullptr && linear) check.problem("{}: unquantized, but a config group claims it", module.name);
    return {};
  }
  if (group == nullptr) {
    check.problem("{}: quantized, but no config group claims it", module.name);
    return {};
  }
  if (group->four_bits != module.four_bits()) {
    check.problem("{}: expected {} bits, as the config says, got {}", module.name, group->four_bits ? 4 : 8,
                  module.weight->info->text());
    return {};
  }
  check.check_tensors(module, group->inputs);
  return {};
}

Result<std::vector<Status>> find_problems(const Path& folder, const SafetensorsFolder* source) {
  NIBBLE_TRY(text, read_file(folder / "config.json"));
  NIBBLE_TRY(json, parse_json(text, "config.json"));
  NIBBLE_TRY(config, model::parse_config(json));
  NIBBLE_TRY(claims, read_claims(json));
  NIBBLE_TRY(tensors, SafetensorsFolder::open(folder));
  FolderCheck check(tensors, Layout::compressed_tensors);
  for (const StoredModule& module : check.modules()) NIBBLE_RETURN_IF_ERROR(check_module(check, claims, module));
  for (const Group& group : claims.groups) {
    for (const std::string& name : group.targets.names) {
      if (check.find(name) == nullptr)
        check.problem("{}: expected a weight, as a config group claims it, got none", name);
    }
  }
  check.check_fused();
  check.check_head(config);
  if (source != nullptr) check.check_against(*source);
  return check.take();
}

}  // namespace

std::vector<Status> compressed_tensors_problems(const Path& folder, const SafetensorsFolder* source) {
  Result<std::vector<Status>> problems = find_problems(folder, source);
  if (!problems.ok()) return {problems.status()};
  return std::move(problems).value();
}

}  // namespace nibble::checkpoint

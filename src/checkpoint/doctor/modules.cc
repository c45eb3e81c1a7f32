#include "checkpoint/doctor/modules.h"

#include "checkpoint/linear_layout.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr std::string_view kNoLinears[] = {"embed_tokens", "pos_embed", "norm", "conv1d", "patch_embed.proj"};

Json* object_at(Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_object() ? &*found : nullptr;
}

}  // namespace

std::vector<Module> linears(const Folder& folder) {
  std::vector<Module> out;
  for (const FolderTensor& tensor : folder.tensors()) {
    const bool packed = tensor.name.ends_with(kWeightPackedSuffix);
    if ((!packed && !tensor.name.ends_with(kWeightSuffix)) || tensor.shape.size() < 2) continue;
    Module module{tensor.name.substr(0, tensor.name.rfind('.')), &tensor};
    if (tensor.dtype() == "F8_E4M3") module.stored = Format::fp8;
    if (tensor.dtype() == "U8") module.stored = Format::nvfp4;
    bool linear = tensor.shape.size() == 2;
    for (const std::string_view end : kNoLinears) linear = linear && !module.name.ends_with(end);
    if (linear || module.quantized()) out.push_back(std::move(module));
  }
  return out;
}

const Json* quantization_section(const Folder& folder) {
  for (const Json* place : {&folder.config(), &folder.text_config()}) {
    const Json* section = find_value(*place, "quantization_config");
    if (section != nullptr && section->is_object()) return section;
  }
  return nullptr;
}

const Json* hf_section(const Folder& folder) {
  const Json* file = folder.json(kHfQuant);
  const Json* section = file == nullptr ? nullptr : find_value(*file, "quantization");
  return section != nullptr && section->is_object() ? section : nullptr;
}

NameLists edit_name_lists(Folder& folder) {
  NameLists lists;
  lists.config = object_at(folder.edit(kConfig), "quantization_config");
  if (lists.config == nullptr) lists.config = object_at(folder.edit_text_config(), "quantization_config");
  if (folder.json(kHfQuant) != nullptr) lists.hf = object_at(folder.edit(kHfQuant), "quantization");
  return lists;
}

bool entry_matches(Layout layout, const std::string& entry, const std::string& module) {
  if (layout == Layout::modelopt) {
    Quantization one;
    one.exclude = {entry};
    return one.excludes(module);
  }
  const Result<ModuleTarget> target = ModuleTarget::read(Json(entry), kIgnore, kConfig);
  if (!target.ok()) return false;
  const Result<bool> matches = target->matches(module);
  return matches.ok() && *matches;
}

std::string some_of(const std::vector<std::string>& names) {
  if (names.empty()) return "none";
  if (names.size() == 1) return names.front();
  return fmt::format("{} and {} other{}", names.front(), names.size() - 1, names.size() == 2 ? "" : "s");
}

}  // namespace nibble::checkpoint::doctor

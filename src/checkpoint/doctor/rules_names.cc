#include "checkpoint/doctor/rules_names.h"

#include <algorithm>
#include <set>

#include "checkpoint/doctor/modules.h"
#include "model/names.h"

namespace nibble::checkpoint::doctor {
namespace {

// What writers and servers made of the two prefixes, and what it was. Each is applied until none fits.
constexpr std::pair<std::string_view, std::string_view> kCorrupted[] = {
    {"model.language_model.language_model.", "model.language_model."},
    {"model.language_model.model.", "model.language_model."},
    {"model.language_model.visual.", "model.visual."},
    {"model.language_model.lm_head.", "lm_head."},
    {"model.language_model.mtp.", "mtp."},
    {"model.model.", "model."},
    {"model.lm_head.", "lm_head."},
    {"model.mtp.", "mtp."},
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
    {"visual.", "model.visual."},
};

std::string restored(std::string name) {
  for (bool changed = true; changed;) {
    changed = false;
    for (const auto& [from, to] : kCorrupted) {
      if (!name.starts_with(from)) continue;
      name = std::string(to) + name.substr(from.size());
      changed = true;
    }
  }
  return name;
}

// The same module under the prefix that config.json promises.
std::string under_prefix(const std::string& name, std::string_view prefix) {
  for (const std::string_view other : {model::kWrappedPrefix, model::kTextPrefix}) {
    if (!name.starts_with(other)) continue;
    const std::string rest = name.substr(other.size());
    for (const std::string_view part : {"embed_tokens", "layers", "norm"}) {
      if (rest == part || rest.starts_with(std::string(part) + ".") || rest.starts_with(std::string(part) + "*")) {
        return std::string(prefix) + rest;
      }
    }
    return name;
  }
  return name;
}

std::string_view expected_prefix(const Folder& folder) {
  return folder.wrapped() ? model::kWrappedPrefix : model::kTextPrefix;
}

using Renaming = std::function<std::string(const std::string&)>;

std::vector<std::string> renamed_tensors(const Folder& folder, const Renaming& rename) {
  std::vector<std::string> out;
  for (const FolderTensor& tensor : folder.tensors()) {
    if (rename(tensor.name) != tensor.name) out.push_back(tensor.name);
  }
  return out;
}

bool collides(const Folder& folder, const Renaming& rename) {
  std::set<std::string> names;
  return std::any_of(folder.tensors().begin(), folder.tensors().end(),
                     [&](const FolderTensor& tensor) { return !names.insert(rename(tensor.name)).second; });
}

Findings wrong_names(const Folder& folder, const Renaming& rename, std::string failure, std::string advice) {
  const std::vector<std::string> names = renamed_tensors(folder, rename);
  if (names.empty()) return {};
  Finding finding{{"weights", "names", some_of(names)}, std::move(failure), std::move(advice)};
  if (collides(folder, rename)) {
    finding.repairable = false;
    finding.advice = "two tensors would get one name: the file holds the model twice; fetch it again";
  }
  return {finding};
}

Status rename_tensors(Folder& folder, const Renaming& rename) {
  for (FolderTensor& tensor : folder.edit_tensors()) tensor.name = rename(tensor.name);
  return {};
}

// Regular expressions spell a dot as "\.", and may begin with '^'.
std::string renamed_pattern(const std::string& entry, std::string_view prefix) {
  std::string text = entry;
  const std::string_view wide[] = {R"(model\.language_model\.)", "model.language_model."};
  const std::string_view narrow[] = {R"(model\.)", "model."};
  const bool wrapped = prefix == model::kWrappedPrefix;
  const size_t begin = text.starts_with("re:^") ? 4 : 3;
  for (size_t i = 0; i < 2; ++i) {
    const std::string_view from = wrapped ? narrow[i] : wide[i], to = wrapped ? wide[i] : narrow[i];
    if (text.compare(begin, wide[i].size(), wide[i]) == 0 && wrapped) return text;
    if (text.compare(begin, from.size(), from) == 0) return text.replace(begin, from.size(), to);
  }
  return text;
}

// An entry as it should read, if it means modules of this folder under another name; else as it is.
class EntryRenaming {
 public:
  explicit EntryRenaming(const Folder& folder) : prefix_(folder.prefix()) {
    const Result<Quantization> quantization = folder.quantization();
    layout_ = quantization.ok() ? quantization->layout : Layout::modelopt;
    for (const FolderTensor& tensor : folder.tensors()) {
      const size_t dot = tensor.name.rfind('.');
      if (dot != std::string::npos) modules_.push_back(tensor.name.substr(0, dot));
    }
    std::sort(modules_.begin(), modules_.end());
    modules_.erase(std::unique(modules_.begin(), modules_.end()), modules_.end());
  }

  std::string operator()(const std::string& entry) const {
    if (prefix_.empty() || entry == "Linear") return entry;
    const bool pattern = layout_ == Layout::compressed_tensors && entry.starts_with("re:");
    std::string renamed = pattern ? renamed_pattern(entry, prefix_) : under_prefix(restored(entry), prefix_);
    if (renamed == entry) return entry;
    // A pattern that already means something, or that would mean nothing, is left alone.
    if (pattern && (matches_any(entry) || !matches_any(renamed))) return entry;
    return renamed;
  }

 private:
  bool matches_any(const std::string& entry) const {
    const Result<ModuleTarget> target = ModuleTarget::read(Json(entry), "targets", kConfig);
    if (!target.ok()) return false;
    return std::any_of(modules_.begin(), modules_.end(), [&](const std::string& module) {
      const Result<bool> matches = target->matches(module);
      return matches.ok() && *matches;
    });
  }

  std::string_view prefix_;
  Layout layout_ = Layout::modelopt;
  std::vector<std::string> modules_;
};

void rename_list(Json* list, const EntryRenaming& rename, std::vector<std::string>& changed) {
  if (list == nullptr || !list->is_array()) return;
  Json out = Json::array();
  for (const Json& item : *list) {
    Json entry = item;
    if (item.is_string()) {
      std::string renamed = rename(item.get<std::string>());
      if (renamed != item.get_ref<const std::string&>()) changed.push_back(item.get<std::string>());
      entry = std::move(renamed);
    }
    if (std::find(out.begin(), out.end(), entry) == out.end() || !item.is_string()) out.push_back(std::move(entry));
  }
  if (!changed.empty()) *list = std::move(out);
}

Json* value_at(Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

void rename_keys(Json* layers, const EntryRenaming& rename, std::vector<std::string>& changed) {
  if (layers == nullptr || !layers->is_object()) return;
  Json out = Json::object();
  for (const auto& item : layers->items()) {
    std::string renamed = rename(item.key());
    if (renamed != item.key()) changed.push_back(item.key());
    out[std::move(renamed)] = item.value();
  }
  *layers = std::move(out);
}

std::vector<std::string> rename_section(Json& section, const EntryRenaming& rename) {
  std::vector<std::string> changed;
  if (!section.is_object()) return changed;
  for (const char* key : {kIgnore, kExclude}) rename_list(value_at(section, key), rename, changed);
  rename_keys(value_at(section, "quantized_layers"), rename, changed);
  Json* groups = value_at(section, "config_groups");
  if (groups == nullptr || !groups->is_object()) return changed;
  for (const auto& item : groups->items()) {
    Json& group = item.value();
    if (group.is_object()) rename_list(value_at(group, "targets"), rename, changed);
  }
  return changed;
}

}  // namespace

Findings RepeatedPrefix::check(const Folder& folder, Asked) {
  return wrong_names(folder, restored,
                     "no reader finds the tensors under these names: most fill the gaps with random numbers",
                     "give them back their names");
}

Status RepeatedPrefix::fix(Folder& folder, Asked) {
  return rename_tensors(folder, restored);
}

Findings TensorPrefix::check(const Folder& folder, Asked) {
  const std::string_view prefix = expected_prefix(folder);
  return wrong_names(
      folder, [&](const std::string& name) { return under_prefix(name, prefix); },
      fmt::format("config.json has the form whose tensors begin with \"{}\": readers find none of these", prefix),
      "rename the tensors after the form of config.json");
}

Status TensorPrefix::fix(Folder& folder, Asked) {
  const std::string_view prefix = expected_prefix(folder);
  return rename_tensors(folder, [&](const std::string& name) { return under_prefix(name, prefix); });
}

Findings ListedNames::check(const Folder& folder, Asked) {
  const EntryRenaming rename(folder);
  Findings out;
  const auto look = [&](const Json* section, const char* file) {
    if (section == nullptr) return;
    Json copy = *section;
    const std::vector<std::string> changed = rename_section(copy, rename);
    if (changed.empty()) return;
    out.push_back({{file, "names of modules", some_of(changed)},
                   "names that match no tensor: modules that were to stay dense are read as codes, and the other way",
                   fmt::format("rename them after the tensors, which begin with \"{}\"", folder.prefix())});
  };
  look(quantization_section(folder), kConfig);
  look(hf_section(folder), kHfQuant);
  return out;
}

Status ListedNames::fix(Folder& folder, Asked) {
  const EntryRenaming rename(folder);
  const NameLists lists = edit_name_lists(folder);
  if (lists.config != nullptr) rename_section(*lists.config, rename);
  if (lists.hf != nullptr) rename_section(*lists.hf, rename);
  return {};
}

}  // namespace nibble::checkpoint::doctor

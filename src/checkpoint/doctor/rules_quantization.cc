#include "checkpoint/doctor/rules_quantization.h"

#include <algorithm>
#include <map>
#include <set>

#include "checkpoint/doctor/modules.h"
#include "checkpoint/fused_linears.h"
#include "checkpoint/json_fields.h"
#include "checkpoint/linear_layout.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr const char* kSection = "quantization_config";
constexpr const char* kMixed = "MIXED_PRECISION";

bool has_tensors_ending(const Folder& folder, std::string_view suffix) {
  return std::any_of(folder.tensors().begin(), folder.tensors().end(),
                     [&](const FolderTensor& tensor) { return tensor.name.ends_with(suffix); });
}

bool contains_algo(const Quantization& quantization, std::string_view algo) {
  if (quantization.algo == algo) return true;
  return std::any_of(quantization.layers.begin(), quantization.layers.end(),
                     [&](const auto& layer) { return layer.second.algo == algo; });
}

// The list in the layout's word, as entries.
std::vector<std::string> entries(const Json* section, const char* key) {
  std::vector<std::string> out;
  const Json* list = section == nullptr ? nullptr : find_value(*section, key);
  if (list == nullptr || !list->is_array()) return out;
  for (const Json& item : *list) {
    if (item.is_string()) out.push_back(item.get<std::string>());
  }
  return out;
}

struct Dense {
  std::vector<std::string> text, draft, vision;
};

bool is_claimed(const Quantization& quantization, const std::string& module) {
  const Result<StoredFormat> format = quantization.format_of(module);
  return format.ok() && format->quantized();
}

// Modules that are stored dense and that the config calls quantized.
Dense claimed_but_dense(const Folder& folder, const Quantization& quantization) {
  Dense out;
  if (!quantization.quantized()) return out;
  for (const Module& module : linears(folder)) {
    if (module.quantized() || !is_claimed(quantization, module.name)) continue;
    switch (model::part_of(module.name + ".")) {
      case model::Part::mtp:
        out.draft.push_back(module.name);
        break;
      case model::Part::visual:
        out.vision.push_back(module.name);
        break;
      default:
        out.text.push_back(module.name);
    }
  }
  // In the compressed-tensors layout a tied head is a linear like others.
  if (quantization.layout == Layout::compressed_tensors && folder.tensor("lm_head.weight") == nullptr &&
      folder.tensor("lm_head.weight_packed") == nullptr && !folder.tensors().empty() &&
      is_claimed(quantization, "lm_head")) {
    out.text.push_back("lm_head");
  }
  return out;
}

// Modules that are stored quantized and that the config calls dense, though no list names them.
std::vector<std::string> quantized_but_unclaimed(const Folder& folder, const Quantization& quantization) {
  std::vector<std::string> out;
  for (const Module& module : linears(folder)) {
    if (!module.quantized() || is_claimed(quantization, module.name)) continue;
    out.push_back(module.name);
  }
  return out;
}

void append(Json* section, const char* key, const std::string& entry) {
  if (section == nullptr) return;
  Json& list = (*section)[key];
  if (!list.is_array()) list = Json::array();
  if (std::find(list.begin(), list.end(), entry) == list.end()) list.push_back(entry);
}

void ignore(const NameLists& lists, const std::string& entry) {
  append(lists.config, kIgnore, entry);
  append(lists.hf, kExclude, entry);
}

// Takes out the entries that mean a quantized module; the dense modules that they meant as well get entries of their
// own.
void release_list(Json* section, const char* key, Layout layout, const std::vector<Module>& modules) {
  if (section == nullptr || find_value(*section, key) == nullptr) return;
  Json kept = Json::array();
  std::vector<std::string> instead;
  for (const std::string& entry : entries(section, key)) {
    const bool hits = std::any_of(modules.begin(), modules.end(), [&](const Module& module) {
      return module.quantized() && entry_matches(layout, entry, module.name);
    });
    if (!hits) {
      kept.push_back(entry);
      continue;
    }
    for (const Module& module : modules) {
      if (!module.quantized() && entry_matches(layout, entry, module.name)) instead.push_back(module.name);
    }
  }
  for (const std::string& name : instead) {
    if (std::find(kept.begin(), kept.end(), name) == kept.end()) kept.push_back(name);
  }
  (*section)[key] = std::move(kept);
}

std::vector<std::string> ignored_quantized(const Folder& folder, const Quantization& quantization) {
  std::vector<std::string> ignore = entries(quantization_section(folder), kIgnore);
  if (quantization.layout == Layout::modelopt) {
    for (std::string& entry : entries(hf_section(folder), kExclude)) ignore.push_back(std::move(entry));
  }
  std::vector<std::string> out;
  for (const Module& module : linears(folder)) {
    const bool hit = module.quantized() && std::any_of(ignore.begin(), ignore.end(), [&](const std::string& entry) {
                       return entry_matches(quantization.layout, entry, module.name);
                     });
    if (hit) out.push_back(module.name);
  }
  return out;
}

std::string modelopt_algo(const Folder& folder, const Module& module) {
  if (module.stored == Format::fp8) return "FP8";
  return folder.tensor(module.name + std::string(kInputScaleSuffix)) != nullptr ? "NVFP4" : "W4A16_NVFP4";
}

}  // namespace

Findings UnreadableQuantization::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok()) {
    const Status& status = quantization.status();
    return {{{kConfig, kSection, status.message()},
             "nibble cannot tell which weights are codes, and most readers cannot either",
             status.hint().empty() ? "compare with the exporter's own config files, or quantize the BF16 model again"
                                   : status.hint()}};
  }
  if (contains_algo(*quantization, "NVFP4_SVD") && !has_tensors_ending(folder, kLowRankASuffix)) {
    return {{{"weights", "svdquant_lora_a", "none"},
             "the low-rank branches are missing: what is left are remainders, and replies are noise",
             "ModelOpt's exporter leaves them out: quantize the BF16 model again with `nibble quantize`, with "
             "--strategy svdquant or any other"}};
  }
  return {};
}

Findings NestedQuantization::check(const Folder& folder, Asked) {
  if (!folder.wrapped() || find_value(folder.config(), kSection) != nullptr ||
      find_value(folder.text_config(), kSection) == nullptr) {
    return {};
  }
  return {{{kConfig, "text_config.quantization_config", "an object"},
           "servers look at the root of config.json: they read the codes as BF16 numbers, or stop",
           "move it to the root"}};
}

Status NestedQuantization::fix(Folder& folder, Asked) {
  Json& text = folder.edit_text_config();
  Json section = text[kSection];
  text.erase(kSection);
  folder.edit(kConfig)[kSection] = std::move(section);
  return {};
}

Findings QuantizedButIgnored::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok() || !quantization->quantized()) return {};
  const std::vector<std::string> names = ignored_quantized(folder, *quantization);
  if (names.empty()) return {};
  return {{{kConfig, "quantization_config.ignore", some_of(names)},
           "stored as codes and listed as dense: vLLM stops with a KeyError or computes with a wrong head",
           "take them out of the list"}};
}

Status QuantizedButIgnored::fix(Folder& folder, Asked) {
  NIBBLE_TRY(quantization, folder.quantization());
  const std::vector<Module> modules = linears(folder);
  const NameLists lists = edit_name_lists(folder);
  release_list(lists.config, kIgnore, quantization.layout, modules);
  if (quantization.layout == Layout::modelopt) release_list(lists.hf, kExclude, quantization.layout, modules);
  return {};
}

Findings Unclaimed::check(const Folder& folder, Asked asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok()) return {};
  Findings out;
  const Dense dense = claimed_but_dense(folder, *quantization);
  if (!dense.text.empty()) {
    out.push_back({{kConfig, kSection, some_of(dense.text)},
                   "stored dense, and no entry of the list of dense modules means them: readers look for codes and "
                   "fill the gaps with random numbers",
                   "list them"});
  }
  if (!dense.vision.empty()) {
    out.push_back({{kConfig, kSection, some_of(dense.vision)},
                   "the vision tower is stored dense and not listed: only readers that never quantize it get by",
                   "list model.visual"});
    if (asked != Reader::compressed_tensors && asked != Reader::transformers5) out.back().level = Level::warning;
  }
  // With an entry that means them they belong to the rule of ignored modules.
  std::vector<std::string> unclaimed = quantized_but_unclaimed(folder, *quantization);
  for (const std::string& name : ignored_quantized(folder, *quantization)) std::erase(unclaimed, name);
  if (!unclaimed.empty()) {
    const bool mixed = quantization->algo == kMixed;
    out.push_back({{kConfig, kSection, some_of(unclaimed)},
                   "stored as codes, and the config names them nowhere: readers take them for dense and stop at the "
                   "shape, or compute with bytes",
                   mixed ? "add them to quantized_layers"
                         : "compare with the exporter's own config files, or quantize the BF16 model again",
                   mixed});
  }
  return out;
}

Status Unclaimed::fix(Folder& folder, Asked) {
  NIBBLE_TRY(quantization, folder.quantization());
  const bool compressed = quantization.layout == Layout::compressed_tensors;
  const Dense dense = claimed_but_dense(folder, quantization);
  NameLists lists = edit_name_lists(folder);
  if (compressed) lists.hf = nullptr;
  if (quantization.algo == kMixed) {
    // There the layers are the truth.
    for (Json* section : {lists.config, lists.hf}) {
      if (section == nullptr || find_value(*section, "quantized_layers") == nullptr) continue;
      Json& layers = (*section)["quantized_layers"];
      for (const std::string& name : dense.text) layers.erase(name);
      for (const std::string& name : dense.vision) layers.erase(name);
      for (const Module& module : linears(folder)) {
        if (!module.quantized() || is_claimed(quantization, module.name)) continue;
        layers[module.name] = {{"quant_algo", modelopt_algo(folder, module)}};
        if (module.stored == Format::nvfp4) layers[module.name]["group_size"] = kNvfp4Block;
      }
    }
  }
  for (const std::string& name : dense.text) ignore(lists, name);
  if (!dense.vision.empty()) ignore(lists, compressed ? "re:.*visual.*" : "model.visual*");
  return {};
}

Findings DraftHeadListed::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok()) return {};
  const Dense dense = claimed_but_dense(folder, *quantization);
  if (dense.draft.empty()) return {};
  return {{{kConfig, kSection, some_of(dense.draft)},
           "the draft head is stored dense and not listed: speculative decoding looks for codes that are not there",
           "list mtp"}};
}

Status DraftHeadListed::fix(Folder& folder, Asked) {
  NIBBLE_TRY(quantization, folder.quantization());
  NameLists lists = edit_name_lists(folder);
  const bool compressed = quantization.layout == Layout::compressed_tensors;
  if (compressed) lists.hf = nullptr;
  ignore(lists, compressed ? "re:^mtp.*" : "mtp*");
  return {};
}

namespace {

// What vLLM takes from an hf_quant_config.json of one NVFP4 format; of a mixture it takes quantized_layers.
std::vector<const char*> missing_keys(const Folder& folder) {
  std::vector<const char*> missing;
  const Json* section = hf_section(folder);
  if (section == nullptr) return missing;
  if (folder.word(*section, "quant_algo").find("NVFP4") == std::string::npos) return missing;
  for (const char* key : {"kv_cache_quant_algo", "exclude_modules", "group_size"}) {
    if (!section->contains(key)) missing.push_back(key);
  }
  return missing;
}

bool is_modelopt(const Folder& folder) {
  const Json* section = quantization_section(folder);
  return section != nullptr && folder.word(*section, "quant_method") == "modelopt";
}

}  // namespace

Findings HfQuantConfig::check(const Folder& folder, Asked asked) {
  Findings out;
  if (is_modelopt(folder) && hf_section(folder) == nullptr && folder.quantization().ok()) {
    Finding finding{{kHfQuant, "file", "none"},
                    "TensorRT-LLM and SGLang's cache look for it and find dense weights",
                    "write it from quantization_config"};
    if (asked != Reader::trtllm) finding.level = Level::warning;
    out.push_back(std::move(finding));
  }
  for (const char* key : missing_keys(folder)) {
    out.push_back({{kHfQuant, std::string("quantization.") + key, "none"},
                   "vLLM demands this key, null or not: ValueError at start",
                   "write it, with the value that its absence means"});
  }
  const Json* section = quantization_section(folder);
  if (section == nullptr && hf_section(folder) != nullptr && !folder.word(*hf_section(folder), "quant_algo").empty()) {
    Finding finding{{kConfig, kSection, "none"},
                    "readers that look in config.json alone take codes for dense weights and stop",
                    "write it from hf_quant_config.json"};
    finding.level = Level::warning;
    out.push_back(std::move(finding));
  }
  return out;
}

Status HfQuantConfig::fix(Folder& folder, Asked) {
  const Json* section = quantization_section(folder);
  if (is_modelopt(folder) && hf_section(folder) == nullptr) {
    const Json copy = *section;
    Json quantization = {
        {"quant_algo", folder.word(copy, "quant_algo")},
        {"kv_cache_quant_algo", find_value(copy, "kv_cache_scheme") != nullptr ? Json("FP8") : Json()}};
    if (const Json* layers = find_value(copy, "quantized_layers")) quantization["quantized_layers"] = *layers;
    if (folder.word(copy, "quant_algo").find("NVFP4") != std::string::npos) quantization["group_size"] = kNvfp4Block;
    quantization["exclude_modules"] = copy.contains(kIgnore) ? copy[kIgnore] : Json::array();
    Json producer = copy.contains("producer") ? copy["producer"] : Json{{"name", "modelopt"}};
    folder.edit(kHfQuant) = {{"producer", std::move(producer)}, {"quantization", std::move(quantization)}};
  }
  for (const char* key : missing_keys(folder)) {
    const std::string_view word = key;
    Json value;
    if (word == "group_size") value = kNvfp4Block;
    if (word == kExclude) {
      const Json* list = section == nullptr ? nullptr : find_value(*section, kIgnore);
      value = list == nullptr ? Json::array() : *list;
    }
    folder.edit(kHfQuant)["quantization"][key] = std::move(value);
  }
  if (section != nullptr || hf_section(folder) == nullptr) return {};
  const Json hf = *hf_section(folder);
  Json made = {{"quant_method", "modelopt"}, {"quant_algo", folder.word(hf, "quant_algo")}};
  made[kIgnore] = hf.contains(kExclude) ? hf[kExclude] : Json::array();
  if (const Json* layers = find_value(hf, "quantized_layers")) made["quantized_layers"] = *layers;
  if (find_value(hf, "kv_cache_quant_algo") != nullptr) {
    made["kv_cache_scheme"] = {{"dynamic", false}, {"num_bits", 8}, {"type", "float"}};
  }
  const Json* producer = find_value(*folder.json(kHfQuant), "producer");
  made["producer"] = producer == nullptr ? Json{{"name", "modelopt"}} : *producer;
  folder.edit(kConfig)[kSection] = std::move(made);
  return {};
}

Findings InputFactors::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok()) return {};
  const bool awq = contains_algo(*quantization, "NVFP4_AWQ");
  if (!awq) return {};
  return {{{kHfQuant, "quant_algo", "NVFP4_AWQ"},
           "the exporter folds the scales of AWQ into the norms as w*s, but norms of this family multiply by 1+w, and "
           "in_proj_a and in_proj_b, which read the same norm, are left as they were: on tiny-voice the divergence "
           "from BF16 was .034 where the same codes folded right have .014. vLLM refuses the format",
           "quantize the BF16 model again: `nibble quantize --strategy awq_lite` folds by 1+w into plain NVFP4; nibble "
           "loads this folder as it is, pre_quant_scale applied and the inputs of those modules not rounded"}};
}

Findings LayoutOfReader::check(const Folder& folder, Asked asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok() || !quantization->quantized() || !asked) return {};
  const bool compressed = quantization->layout == Layout::compressed_tensors;
  const Evidence evidence{kConfig, "quantization_config.quant_method", compressed ? "compressed-tensors" : "modelopt"};
  const bool library = asked == Reader::transformers5 || asked == Reader::compressed_tensors;
  if (library && !compressed) {
    return {{evidence, "transformers has no method modelopt: it takes the codes for dense weights and stops",
             "nibble convert --format compressed-tensors"}};
  }
  if (asked == Reader::trtllm && compressed) {
    return {{evidence, "TensorRT-LLM reads hf_quant_config.json alone, which this layout has not",
             "nibble convert --format modelopt"}};
  }
  if (contains_algo(*quantization, "NVFP4_SVD") && !(asked == Reader::llamacpp)) {
    return {{{kConfig, "quantization_config.quant_algo", "NVFP4_SVD"},
             "this reader has no low-rank branches",
             "quantize the BF16 model with another strategy; nibble serves this folder itself"}};
  }
  return {};
}

Findings WideDtype::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok() || !quantization->quantized() || quantization->layout == Layout::modelopt) return {};
  for (const Json* place : {&folder.text_config(), &folder.config()}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const std::string dtype = folder.word(*place, key);
      if (dtype.empty() || dtype == "bfloat16") continue;
      return {{{kConfig, key, dtype},
               "compressed-tensors unpacks to BF16 whatever the folder says: the first forward stops at two dtypes",
               "load with dtype=bfloat16, or quantize from a BF16 folder"}};
    }
  }
  return {};
}

Findings FusedFormats::check(const Folder& folder, Asked) {
  std::map<std::string, Module> first;
  std::vector<std::string> names;
  for (const Module& module : linears(folder)) {
    const auto [it, inserted] = first.emplace(fused_module(module.name), module);
    if (!inserted && it->second.stored != module.stored) names.push_back(module.name);
  }
  if (names.empty()) return {};
  return {{{"weights", "formats of fused linears", some_of(names)},
           "servers load such linears as one matrix with one format: ValueError at start",
           "quantize the BF16 model again with one format for each of {q,k,v}, {gate,up}, {in_proj_qkv,in_proj_z}; "
           "nibble loads them as they are"}};
}

Findings ScalarShapes::check(const Folder& folder, Asked) {
  const Result<Quantization> quantization = folder.quantization();
  if (!quantization.ok() || quantization->layout != Layout::compressed_tensors) return {};
  std::vector<std::string> names;
  for (const FolderTensor& tensor : folder.tensors()) {
    const bool scale = tensor.name.ends_with(kWeightGlobalScaleSuffix) ||
                       tensor.name.ends_with(kInputGlobalScaleSuffix) || tensor.name.ends_with(kInputScaleSuffix) ||
                       tensor.name.ends_with(kWeightScaleSuffix);
    if (scale && tensor.shape.empty()) names.push_back(tensor.name);
  }
  if (names.empty()) return {};
  return {{{"weights", "shape", some_of(names) + ": []"},
           "from a scale without a dimension compressed-tensors divides in BF16: the scales are wrong, silently",
           "give them the shape [1]; the bytes stay"}};
}

Status ScalarShapes::fix(Folder& folder, Asked) {
  for (FolderTensor& tensor : folder.edit_tensors()) {
    const bool scale = tensor.name.ends_with(kWeightGlobalScaleSuffix) ||
                       tensor.name.ends_with(kInputGlobalScaleSuffix) || tensor.name.ends_with(kInputScaleSuffix) ||
                       tensor.name.ends_with(kWeightScaleSuffix);
    if (scale && tensor.shape.empty()) tensor.shape = {1};
  }
  return {};
}

namespace {

// Groups of the compressed-tensors layout that round inputs to NVFP4 and do not say in what the scales are stored.
std::vector<std::string> groups_without_scale_dtype(const Json* section) {
  std::vector<std::string> names;
  const Json* groups = section == nullptr ? nullptr : find_value(*section, "config_groups");
  if (groups == nullptr || !groups->is_object() || find_value(*section, "quant_method") == nullptr ||
      *find_value(*section, "quant_method") != "compressed-tensors") {
    return names;
  }
  for (const auto& item : groups->items()) {
    const Json* inputs = find_value(item.value(), "input_activations");
    if (inputs == nullptr || !inputs->is_object() || find_value(*inputs, "scale_dtype") != nullptr) continue;
    const Json* bits = find_value(*inputs, "num_bits");
    if (bits != nullptr && *bits == 4) names.push_back(item.key());
  }
  return names;
}

}  // namespace

Findings InputScaleDtype::check(const Folder& folder, Asked) {
  const std::vector<std::string> names = groups_without_scale_dtype(quantization_section(folder));
  if (names.empty()) return {};
  return {{{kConfig, "quantization_config.config_groups." + names.front() + ".input_activations.scale_dtype", "none"},
           "compressed-tensors runs, and rounds inputs under scales that are not rounded to E4M3: KL .28 to .41",
           "write \"torch.float8_e4m3fn\""}};
}

Status InputScaleDtype::fix(Folder& folder, Asked) {
  const NameLists lists = edit_name_lists(folder);
  for (const std::string& name : groups_without_scale_dtype(lists.config)) {
    (*lists.config)["config_groups"][name]["input_activations"]["scale_dtype"] = "torch.float8_e4m3fn";
  }
  return {};
}

}  // namespace nibble::checkpoint::doctor

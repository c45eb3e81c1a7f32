#include "checkpoint/doctor/rules_config.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/doctor/released.h"
#include "checkpoint/json_fields.h"

namespace nibble::checkpoint::doctor {
namespace {

constexpr const char* kRootType = "qwen3_5";
constexpr const char* kTextType = "qwen3_5_text";
constexpr const char* kWrappedClass = "Qwen3_5ForConditionalGeneration";
constexpr const char* kTextClass = "Qwen3_5ForCausalLM";

Evidence in_config(const Json& object, const char* key, std::string_view path = {}) {
  return {kConfig, std::string(path) + key, shown(find_value(object, key))};
}

std::string_view text_path(const Folder& folder) {
  return folder.wrapped() ? "text_config." : "";
}

bool is_true(const Json* value) {
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::optional<int64_t> integer(const Json& object, const char* key) {
  const Json* value = find_value(object, key);
  if (value == nullptr || !value->is_number_integer()) return {};
  return value->get<int64_t>();
}

const char* expected_type(const Folder& folder) {
  return folder.wrapped() ? kRootType : kTextType;
}

}  // namespace

bool is_family(const Folder& folder) {
  const Json& text = folder.text_config();
  const std::string types = folder.word(folder.config(), "model_type") + " " + folder.word(text, "model_type");
  if (types.find("moe") != std::string::npos) return false;
  if (const auto experts = integer(text, "num_experts"); experts && *experts > 0) return false;
  const bool by_keys =
      find_value(text, "linear_num_value_heads") != nullptr && find_value(text, "linear_conv_kernel_dim") != nullptr;
  const bool by_tensors = folder.tensors().empty() ||
                          std::any_of(folder.tensors().begin(), folder.tensors().end(), [](const FolderTensor& tensor) {
                            return tensor.name.find("linear_attn.in_proj_") != std::string::npos;
                          });
  return by_keys && by_tensors;
}

Findings ModelType::check(const Folder& folder, Asked) {
  Findings out;
  const bool family = is_family(folder);
  const auto look = [&](const Json& object, std::string_view path, std::initializer_list<std::string_view> known) {
    const std::string found = folder.word(object, "model_type");
    if (std::find(known.begin(), known.end(), found) != known.end()) return;
    out.push_back({in_config(object, "model_type", path),
                   "the class of the model is chosen by this word: another model is built, or none",
                   family ? fmt::format("write \"{}\"", *known.begin())
                          : "this is no dense Qwen3.5 model: nibble neither reads nor repairs it",
                   family});
  };
  look(folder.config(), "", {expected_type(folder)});
  if (folder.wrapped()) look(folder.text_config(), "text_config.", {kTextType});
  return out;
}

Status ModelType::fix(Folder& folder, Asked) {
  folder.edit(kConfig)["model_type"] = expected_type(folder);
  if (folder.wrapped()) folder.edit_text_config()["model_type"] = kTextType;
  return {};
}

Findings Architectures::check(const Folder& folder, Asked) {
  const char* expected = folder.wrapped() ? kWrappedClass : kTextClass;
  const Json* list = find_value(folder.config(), "architectures");
  if (list != nullptr && *list == Json::array({expected})) return {};
  std::string found = list == nullptr ? "none" : list->dump(-1, ' ', false, Json::error_handler_t::replace);
  const bool qwen2 = found.find("Qwen2") != std::string::npos;
  return {{{kConfig, "architectures", std::move(found)},
           qwen2 ? "harmful: the class of Qwen2-VL has neither the delta rule nor this vision tower; what loads under "
                   "it computes something else"
                 : "servers and converters choose the model's code by this name",
           fmt::format("write [\"{}\"]", expected)}};
}

Status Architectures::fix(Folder& folder, Asked) {
  folder.edit(kConfig)["architectures"] = Json::array({folder.wrapped() ? kWrappedClass : kTextClass});
  return {};
}

Findings TextForm::check(const Folder& folder, Asked) {
  if (folder.wrapped() || !is_family(folder)) return {};
  return {{{kConfig, "text_config", "none"},
           "the text-only form is unknown to these readers or new in them",
           "put the text keys under text_config of a Qwen3_5ForConditionalGeneration; serve with "
           "--language-model-only where there is no vision tower"}};
}

Status TextForm::fix(Folder& folder, Asked) {
  Json& root = folder.edit(kConfig);
  Json text = root;
  Json wrapped = Json::object();
  wrapped["architectures"] = Json::array({kWrappedClass});
  wrapped["model_type"] = kRootType;
  for (const char* key : {"architectures", "quantization_config", "transformers_version"}) text.erase(key);
  text["model_type"] = kTextType;
  wrapped["text_config"] = std::move(text);
  for (const char* key : {"dtype", "torch_dtype", "tie_word_embeddings", "eos_token_id", "pad_token_id",
                          "quantization_config", "transformers_version"}) {
    if (root.contains(key)) wrapped[key] = root[key];
  }
  root = std::move(wrapped);
  NIBBLE_RETURN_IF_ERROR(VisionConfig::fix(folder, {}));
  return VisionTokens::fix(folder, {});
}

Findings VisionConfig::check(const Folder& folder, Asked) {
  if (!folder.wrapped()) return {};
  const Json* vision = find_value(folder.config(), "vision_config");
  if (vision == nullptr || !vision->is_object()) {
    return {{{kConfig, "vision_config", shown(vision)},
             "the class default writes vectors of 3584 numbers, which fits no released size",
             "write the vision_config of this size"}};
  }
  const auto out = integer(*vision, "out_hidden_size"), hidden = integer(folder.text_config(), "hidden_size");
  if (!hidden || out == hidden) return {};
  return {{{kConfig, "vision_config.out_hidden_size", shown(find_value(*vision, "out_hidden_size"))},
           fmt::format("the vision tower must write vectors of hidden_size = {}", *hidden),
           "write hidden_size"}};
}

Status VisionConfig::fix(Folder& folder, Asked) {
  const int64_t hidden = integer(folder.text_config(), "hidden_size").value_or(0);
  Json& root = folder.edit(kConfig);
  const Json* vision = find_value(root, "vision_config");
  if (vision == nullptr || !vision->is_object()) {
    root["vision_config"] = released_vision_config(hidden);
  } else {
    root["vision_config"]["out_hidden_size"] = hidden;
  }
  return {};
}

Findings VisionTokens::check(const Folder& folder, Asked) {
  if (!folder.wrapped()) return {};
  Findings out;
  for (const SpecialToken& token : kVisionTokens) {
    const int64_t expected = token_id(folder, token);
    if (integer(folder.config(), token.key) == expected) continue;
    out.push_back({in_config(folder.config(), token.key),
                   fmt::format("images are put where this id stands, and {} is {}", token.content, expected),
                   fmt::format("write {}", expected)});
  }
  return out;
}

Status VisionTokens::fix(Folder& folder, Asked) {
  for (const SpecialToken& token : kVisionTokens) folder.edit(kConfig)[token.key] = token_id(folder, token);
  return {};
}

Findings RopeParameters::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  const Json* rope = find_value(text, "rope_parameters");
  const std::string path(text_path(folder));
  if (rope == nullptr || !rope->is_object()) {
    return {{in_config(text, "rope_parameters", path),
             "readers take rope_theta 10000 and a whole head from their class instead",
             "write the five keys of the family, with the theta and the factor that stand elsewhere in the file"}};
  }
  if (!folder.wrapped() || find_value(*rope, "mrope_section") != nullptr) return {};
  return {{in_config(*rope, "mrope_section", path + "rope_parameters."),
           "vLLM takes a model without it for one with plain positions and stops at the first request",
           "write the three sections that fill the rotated part of a head, and mrope_interleaved"}};
}

Status RopeParameters::fix(Folder& folder, Asked) {
  Json& text = folder.edit_text_config();
  const Json* old = find_value(text, "rope_parameters");
  const Json defaults = released_rope(std::clamp<int64_t>(integer(text, "head_dim").value_or(256), 8, 1024));
  Json rope = old != nullptr && old->is_object() ? *old : defaults;
  if (old == nullptr || !old->is_object()) {
    const Json* scaling = find_value(text, "rope_scaling");
    for (const Json* place : {static_cast<const Json*>(&text), scaling}) {
      for (const char* key : {"rope_theta", "partial_rotary_factor", "mrope_section"}) {
        const Json* value = place == nullptr ? nullptr : find_value(*place, key);
        if (value != nullptr) rope[key] = *value;
      }
    }
  }
  for (const auto& item : defaults.items()) {
    if (find_value(rope, item.key().c_str()) == nullptr) rope[item.key()] = item.value();
  }
  text["rope_parameters"] = rope;
  return {};
}

namespace {

const FolderTensor* own_head(const Folder& folder) {
  const FolderTensor* head = folder.tensor("lm_head.weight");
  return head != nullptr ? head : folder.tensor("lm_head.weight_packed");
}

// Whether the head in the files holds other numbers than the embedding: then it is no copy of it, as some writers save.
bool differs_from_embedding(const Folder& folder, const FolderTensor& head) {
  const FolderTensor* embedding = folder.tensor(fmt::format("{}embed_tokens.weight", folder.prefix()));
  if (embedding == nullptr) return false;
  const auto bytes = [](const FolderTensor& tensor) { return tensor.stored->file->bytes(*tensor.stored->info); };
  return head.dtype() != embedding->dtype() || !std::ranges::equal(bytes(head), bytes(*embedding));
}

}  // namespace

Findings TiedFlags::check(const Folder& folder, Asked asked) {
  constexpr const char* kKey = "tie_word_embeddings";
  Findings out;
  const Json& root = folder.config();
  const Json& text = folder.text_config();
  const FolderTensor* head = own_head(folder);
  const bool known = !folder.tensors().empty();
  const char* places[] = {"", "text_config."};
  const Json* objects[] = {&root, &text};
  for (size_t i = 0; i < (folder.wrapped() ? 2u : 1u); ++i) {
    const Json* value = find_value(*objects[i], kKey);
    if (value == nullptr) {
      out.push_back({in_config(*objects[i], kKey, places[i]),
                     "transformers 4 takes true where nothing is said and silently computes with the embedding as head",
                     "write in both places what the tensors show", known});
      if (!asked) out.back().level = Level::warning;
    } else if (known && is_true(value) && head != nullptr && differs_from_embedding(folder, *head)) {
      out.push_back({in_config(*objects[i], kKey, places[i]),
                     "the head in the files is not the embedding: transformers 5 takes it, others the embedding and "
                     "speak noise",
                     "write false, as there is a head of its own"});
    } else if (known && !is_true(value) && head == nullptr) {
      out.push_back({in_config(*objects[i], kKey, places[i]),
                     "lm_head.weight is not in the files: readers stop or make one up",
                     "write true, if the model was tied; else the head was lost: fetch the model again"});
    }
  }
  return out;
}

Status TiedFlags::fix(Folder& folder, Asked) {
  constexpr const char* kKey = "tie_word_embeddings";
  const FolderTensor* head = own_head(folder);
  // A head that is a copy of the embedding may be meant either way: then what is said stays.
  const Json* said = find_value(folder.text_config(), kKey);
  if (said == nullptr) said = find_value(folder.config(), kKey);
  const bool tied = head == nullptr || (is_true(said) && !differs_from_embedding(folder, *head));
  folder.edit(kConfig)[kKey] = tied;
  if (folder.wrapped()) folder.edit_text_config()[kKey] = tied;
  return {};
}

Findings DtypeSpelling::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  const Json *dtype = find_value(text, "dtype"), *old = find_value(text, "torch_dtype");
  if (old == nullptr && dtype == nullptr) {
    dtype = find_value(folder.config(), "dtype");
    old = find_value(folder.config(), "torch_dtype");
  }
  if ((dtype == nullptr) == (old == nullptr)) return {};
  return {{in_config(text, dtype == nullptr ? "dtype" : "torch_dtype", text_path(folder)),
           "readers of one spelling do not know the other and take F32", "write both"}};
}

Status DtypeSpelling::fix(Folder& folder, Asked) {
  const auto both = [](Json& object) {
    const Json *dtype = find_value(object, "dtype"), *old = find_value(object, "torch_dtype");
    if (dtype != nullptr && old == nullptr) object["torch_dtype"] = Json(*dtype);
    if (dtype == nullptr && old != nullptr) object["dtype"] = Json(*old);
  };
  both(folder.edit(kConfig));
  both(folder.edit_text_config());
  return {};
}

Findings LayerTypes::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  if (find_value(text, "layer_types") != nullptr || !integer(text, "num_hidden_layers")) return {};
  return {{in_config(text, "layer_types", text_path(folder)),
           "readers without the interval rule build every layer as full attention",
           "write the list, by full_attention_interval or every fourth layer"}};
}

Status LayerTypes::fix(Folder& folder, Asked) {
  Json& text = folder.edit_text_config();
  const int64_t layers = std::clamp<int64_t>(integer(text, "num_hidden_layers").value_or(0), 0, 512);
  const int64_t interval = std::max<int64_t>(1, integer(text, "full_attention_interval").value_or(4));
  Json types = Json::array();
  for (int64_t i = 0; i < layers; ++i) {
    types.push_back((i + 1) % interval == 0 ? "full_attention" : "linear_attention");
  }
  text["layer_types"] = std::move(types);
  text["full_attention_interval"] = interval;
  return {};
}

Findings StateDtype::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  if (folder.word(text, "mamba_ssm_dtype") == "float32") return {};
  return {{in_config(text, "mamba_ssm_dtype", text_path(folder)),
           "the state of the delta rule is kept in the model's dtype, and long contexts drift", "write \"float32\""}};
}

Status StateDtype::fix(Folder& folder, Asked) {
  folder.edit_text_config()["mamba_ssm_dtype"] = "float32";
  return {};
}

namespace {

void add_ids(const Json* object, std::vector<int64_t>& out) {
  const Json* eos = object == nullptr ? nullptr : find_value(*object, "eos_token_id");
  if (eos == nullptr) return;
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer()) return;
    if (std::find(out.begin(), out.end(), id.get<int64_t>()) == out.end()) out.push_back(id.get<int64_t>());
  };
  if (!eos->is_array()) return add(*eos);
  for (const Json& id : *eos) add(id);
}

// What servers stop at: config.json and generation_config.json together.
std::vector<int64_t> stop_ids(const Folder& folder) {
  std::vector<int64_t> ids;
  add_ids(folder.json(kGenerationConfig), ids);
  add_ids(&folder.config(), ids);
  if (folder.wrapped()) add_ids(&folder.text_config(), ids);
  return ids;
}

std::vector<int64_t> missing_stops(const Folder& folder) {
  const std::vector<int64_t> ids = stop_ids(folder);
  std::vector<int64_t> missing;
  for (const SpecialToken& token : kStopTokens) {
    const std::optional<int64_t> id = known_token_id(folder, token);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) missing.push_back(*id);
  }
  return missing;
}

}  // namespace

Findings StopIds::check(const Folder& folder, Asked) {
  Findings out;
  for (const int64_t id : missing_stops(folder)) {
    const std::vector<int64_t> ids = stop_ids(folder);
    out.push_back({{folder.json(kGenerationConfig) == nullptr ? kConfig : kGenerationConfig, "eos_token_id",
                    fmt::format("[{}]", fmt::join(ids, ", "))},
                   fmt::format("a reply that ends with {} goes on to the length limit", id),
                   "write the union of all stop ids into generation_config.json"});
  }
  return out;
}

Status StopIds::fix(Folder& folder, Asked) {
  std::vector<int64_t> ids = stop_ids(folder);
  for (const int64_t id : missing_stops(folder)) ids.push_back(id);
  folder.edit(kGenerationConfig)["eos_token_id"] = ids;
  return {};
}

Findings DraftHead::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  const auto layers = integer(text, "mtp_num_hidden_layers");
  if (!layers || *layers < 1 || folder.tensors().empty()) return {};
  for (const FolderTensor& tensor : folder.tensors()) {
    if (tensor.name.starts_with("mtp.")) return {};
  }
  return {{in_config(text, "mtp_num_hidden_layers", text_path(folder)),
           "no tensor mtp.* is in the files: speculative decoding starts with a head of random numbers, or not at all",
           "write 0; or copy the mtp.* tensors from the base model, which transformers drops on saving"}};
}

Status DraftHead::fix(Folder& folder, Asked) {
  folder.edit_text_config()["mtp_num_hidden_layers"] = 0;
  return {};
}

Findings RoundedDecay::check(const Folder& folder, Asked) {
  std::string first;
  size_t count = 0;
  for (const FolderTensor& tensor : folder.tensors()) {
    const bool wide = tensor.name.ends_with(".A_log") || tensor.name.ends_with(".linear_attn.norm.weight");
    if (!wide || tensor.dtype() != "BF16") continue;
    if (count++ == 0) first = tensor.name;
  }
  if (count == 0) return {};
  return {{{"weights", "dtype", fmt::format("{} tensors, the first {}", count, first)},
           "readers take both dtypes; the decay of a Qwen3.5 model has lost digits if the trainer rounded it",
           "if these tensors were frozen, copy those of the base model"}};
}

Findings HalfPrecision::check(const Folder& folder, Asked) {
  const Json& text = folder.text_config();
  const auto hidden = integer(text, "hidden_size");
  for (const auto& [object, path] :
       {std::pair<const Json*, std::string_view>{&folder.config(), ""}, {&text, text_path(folder)}}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (folder.word(*object, key) != "float16" || !hidden || *hidden < 5120) continue;
      return {{in_config(*object, key, path), "activations of the 27B model exceed 65504, the largest number of F16",
               "serve in bfloat16; weights that were stored in F16 come from the BF16 model"}};
    }
  }
  return {};
}

}  // namespace nibble::checkpoint::doctor

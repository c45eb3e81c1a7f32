#include "checkpoint/load.h"

#include "checkpoint/fingerprint.h"
#include "checkpoint/gguf_load.h"
#include "checkpoint/tensor_source.h"
#include "io/gguf.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/names.h"

namespace nibble::checkpoint {
namespace {

constexpr const char* kConfigFile = "config.json";
constexpr const char* kHfQuantFile = "hf_quant_config.json";

/// The same error with a hint, where whoever found it knew none. A user's own Ctrl-C needs none.
Status hinted(const Status& status, std::string_view hint) {
  if (status.code() == Code::cancelled) return status;
  return status.hint().empty() ? Status(status.code(), status.message()).with_hint(std::string(hint)) : status;
}

Status check_folder(const Path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored)) {
    return not_found("model folder: expected a folder, got none ({})", folder.string())
        .with_hint("give the folder of a Hugging Face model");
  }
  if (!std::filesystem::is_directory(folder, ignored)) {
    return invalid_argument("model folder: expected a folder, got a file ({})", folder.string())
        .with_hint("give the folder that holds config.json and the safetensors");
  }
  if (!std::filesystem::exists(folder / kConfigFile, ignored)) {
    const bool empty = std::filesystem::is_empty(folder, ignored);
    return not_found("{}: expected in the model folder, got {} ({})", kConfigFile, empty ? "an empty folder" : "none",
                     folder.string())
        .with_hint("give the folder of a Hugging Face model");
  }
  return {};
}

Result<std::optional<Json>> read_hf_quant(const Path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder / kHfQuantFile, ignored)) return std::optional<Json>();
  NIBBLE_TRY(text, read_file(folder / kHfQuantFile));
  NIBBLE_TRY(json, parse_json(text, kHfQuantFile));
  return std::optional<Json>(std::move(json));
}

/// Tied as the config says, else by whether there is a head.
Result<bool> is_tied(const model::Config& config, const SafetensorsFolder& files) {
  const auto* head = files.find("lm_head.weight");
  const bool packed = files.find("lm_head.weight_packed") != nullptr, has_head = packed || head != nullptr;
  if (config.tie_embeddings == true &&
      (packed || (has_head && (head->info->type == DType::u8 || head->info->type == DType::f8e4m3)))) {
    return corrupt("lm_head: expected no quantized head beside \"tie_word_embeddings\": true, got one")
        .with_hint("say \"tie_word_embeddings\": false in config.json: the head is no longer the embedding");
  }
  if (config.tie_embeddings == false && !has_head) {
    return corrupt("lm_head.weight: expected [{},{}] because tie_word_embeddings is false, got no such tensor",
                   config.vocab, config.hidden)
        .with_hint("the checkpoint is incomplete, or config.json should say \"tie_word_embeddings\": true");
  }
  return config.tie_embeddings.value_or(!has_head);
}

/// In a tied model of the compressed-tensors layout the head is a linear like others: its loader would unpack one that
/// is not there.
Status check_tied_head(const Quantization& quantization) {
  if (quantization.layout != Layout::compressed_tensors) return {};
  NIBBLE_TRY(head, quantization.format_of("lm_head"));
  if (!head.quantized()) return {};
  return corrupt("lm_head: expected {} as quantization_config says, got a head that is the embedding", head.algo)
      .with_hint("list lm_head under \"ignore\" in quantization_config");
}

/// The small JSON files: config, quantization and generation.
Status read_descriptions(const Path& folder, LoadedModel& out, std::string& config_text) {
  NIBBLE_RETURN_IF_ERROR(check_folder(folder));
  NIBBLE_TRY(text, read_file(folder / kConfigFile));
  config_text = std::move(text);
  NIBBLE_TRY(json, parse_json(config_text, kConfigFile));
  NIBBLE_TRY(config, model::parse_config(json, kConfigFile));
  NIBBLE_TRY(hf_quant, read_hf_quant(folder));
  NIBBLE_TRY(quantization, read_quantization(json, hf_quant));
  NIBBLE_TRY(generation, read_generation(folder, config));
  out.weights.config = std::move(config);
  out.quantization = std::move(quantization);
  out.generation = std::move(generation);
  return {};
}

Result<LoadedModel> load_folder(const Path& folder, const LoadOptions& options) {
  LoadedModel out;
  std::string config_text;
  if (Status status = read_descriptions(folder, out, config_text); !status.ok()) {
    return hinted(status, "compare the file with that of the model this one was made from");
  }
  const model::Config& config = out.weights.config;
  Result<SafetensorsFolder> opened = SafetensorsFolder::open(folder);
  if (!opened.ok()) return hinted(opened.status(), "the file may be damaged: fetch the model again");
  const SafetensorsFolder& files = *opened;
  NIBBLE_TRY(prefix, model::find_prefix([&](std::string_view name) { return files.find(name) != nullptr; }));
  NIBBLE_TRY(tied, is_tied(config, files));
  if (tied) NIBBLE_RETURN_IF_ERROR(check_tied_head(out.quantization));
  out.weights = model::blank_weights(config, prefix, tied);
  TensorSource source(files, out.quantization, options, out.weights);
  model::visit_weights(out.weights, source);
  if (Status status = source.finish(); !status.ok()) return hinted(status, "fetch the model again");
  if (tied) out.weights.lm_head = model::dense_linear(out.weights.embed);
  for (const Safetensors& file : files.files()) out.weights.mappings.push_back(file.mapping());
  out.format = summarize(out.weights, files);
  std::vector<std::string_view> parts = {config_text};
  for (const Safetensors& file : files.files()) parts.push_back(file.header());
  out.fingerprint = fingerprint(parts);
  return out;
}

}  // namespace

Result<LoadedModel> load_checkpoint(const Path& path, const LoadOptions& options) {
  if (!is_gguf(path)) return load_folder(path, options);
  Result<LoadedModel> model = load_gguf(path, options);
  if (!model.ok()) return hinted(model.status(), "the file may be damaged or of another model: fetch it again");
  return model;
}

Status check_checkpoint(const Path& folder) {
  LoadOptions options;
  options.check_values = false;
  options.widen_f16 = false;
  return load_folder(folder, options).status();
}

}  // namespace nibble::checkpoint

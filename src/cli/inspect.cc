#include <algorithm>
#include <map>

#include "cli/command.h"
#include "cli/terminal.h"
#include "io/gguf.h"
#include "io/safetensors.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir;
  bool tensors = false, json = false;
};

struct TypeTotal {
  int64_t tensors = 0;
  uint64_t bytes = 0;
};

const char* layout_name(const checkpoint::Quantization& quantization) {
  if (!quantization.quantized()) return "";
  return quantization.layout == checkpoint::Layout::modelopt ? "modelopt" : "compressed-tensors";
}

Json describe(const checkpoint::LoadedModel& model, const std::map<std::string, TypeTotal>& totals) {
  const model::Config& c = model.weights.config;
  Json json = {{"format", model.format.format},
               {"fingerprint", model.fingerprint},
               {"model_type", c.model_type},
               {"layers", c.layers},
               {"hidden", c.hidden},
               {"intermediate", c.intermediate},
               {"vocab", c.vocab},
               {"heads", c.heads},
               {"kv_heads", c.kv_heads},
               {"head_dim", c.head_dim},
               {"linear_key_heads", c.key_heads},
               {"linear_value_heads", c.value_heads},
               {"tied_head", model.weights.tied},
               {"max_positions", c.max_positions},
               {"stop_ids", model.generation.stop_ids},
               {"quant_algo", model.quantization.algo},
               {"layout", layout_name(model.quantization)},
               {"activations", model.format.activations},
               {"linears", model.format.linears},
               {"effective_bits", model.format.effective_bits},
               {"parameters", model.format.text_parameters},
               {"bytes", model.format.file_bytes},
               {"bytes_per_token", model.format.bytes_per_token},
               {"tensors", Json::object()}};
  for (const auto& [type, total] : totals) json["tensors"][type] = {{"count", total.tensors}, {"bytes", total.bytes}};
  return json;
}

void print_person(const Flags& flags, const checkpoint::LoadedModel& model,
                  const std::map<std::string, TypeTotal>& totals) {
  const model::Config& c = model.weights.config;
  const int64_t full = c.count(model::LayerType::full_attention);
  fmt::print("{}: {}, {}{}\n\n", flags.dir.string(), c.model_type, model.format.text(),
             model.quantization.algo.empty() ? "" : " (" + model.quantization.algo + ")");
  fmt::print(
      "{}", table({{"layers", fmt::format("{}: {} gated delta, {} full attention", c.layers, c.layers - full, full)},
                   {"hidden / intermediate", fmt::format("{} / {}", c.hidden, c.intermediate)},
                   {"attention heads", fmt::format("{} query, {} key-value, {} wide", c.heads, c.kv_heads, c.head_dim)},
                   {"delta-rule heads", fmt::format("{} key, {} value, {} x {}", c.key_heads, c.value_heads,
                                                    c.key_head_dim, c.value_head_dim)},
                   {"vocabulary", fmt::format("{}{}", c.vocab, model.weights.tied ? ", head tied" : "")},
                   {"trained for", fmt::format("{} positions", c.max_positions)},
                   {"stops at", fmt::format("{}", fmt::join(model.generation.stop_ids, ", "))},
                   {"parameters", fmt::format("{}", model.format.text_parameters)},
                   {"read per token", human_bytes(model.format.bytes_per_token)},
                   {"fingerprint", model.fingerprint}}));
  fmt::print("\n");
  std::vector<std::vector<std::string>> rows = {{"dtype", "tensors", "size"}};
  for (const auto& [type, total] : totals)
    rows.push_back({type, std::to_string(total.tensors), human_bytes(total.bytes)});
  fmt::print("{}", table(rows));
}

struct Listed {
  std::string name, dtype;
  std::vector<int64_t> shape;
  uint64_t bytes;
};

Result<std::vector<Listed>> list_tensors(const Path& path) {
  std::vector<Listed> out;
  if (is_gguf(path)) {
    NIBBLE_TRY(file, Gguf::open(path));
    for (const GgufTensor& t : file.tensors()) {
      out.push_back({t.name, std::string(ggml_format(t.type).name), t.shape, t.bytes});
    }
    return out;
  }
  NIBBLE_TRY(files, SafetensorsFolder::open(path));
  for (const SafetensorsFolder::Entry& entry : files.tensors()) {
    out.push_back({entry.info->name, entry.info->dtype, entry.info->shape, entry.info->bytes});
  }
  return out;
}

Result<int> run(const Flags& flags) {
  NIBBLE_TRY(model, checkpoint::load_checkpoint(flags.dir, {}));
  NIBBLE_TRY(tensors, list_tensors(flags.dir));
  std::map<std::string, TypeTotal> totals;
  std::vector<std::vector<std::string>> rows = {{"tensor", "dtype", "shape", "size"}};
  Json list = Json::array();
  for (const Listed& info : tensors) {
    TypeTotal& total = totals[info.dtype];
    ++total.tensors;
    total.bytes += info.bytes;
    if (!flags.tensors) continue;
    rows.push_back({info.name, info.dtype, fmt::format("[{}]", fmt::join(info.shape, ",")), human_bytes(info.bytes)});
    list.push_back({{"name", info.name}, {"dtype", info.dtype}, {"shape", info.shape}, {"bytes", info.bytes}});
  }
  if (flags.json) {
    Json json = describe(model, totals);
    if (flags.tensors) json["tensor_list"] = list;
    print_json(json);
    return 0;
  }
  print_person(flags, model, totals);
  if (flags.tensors) fmt::print("\n{}", table(rows));
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("inspect", "What is in a checkpoint folder");
  command->footer(
      "Reads config.json and all shards as a server would, checks every tensor that the model needs and its values,\n"
      "and sums up what is there. Nothing is changed.\n\n"
      "  nibble inspect models/tiny-voice --tensors");
  command->add_option("DIR", flags->dir, "a checkpoint folder, or a GGUF file")->required();
  command->add_flag("--tensors", flags->tensors, "list every tensor");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

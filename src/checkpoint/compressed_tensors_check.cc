#include "checkpoint/compressed_tensors_check.h"

#include "checkpoint/folder_check.h"
#include "checkpoint/quantization.h"
#include "io/json.h"
#include "model/config.h"

namespace nibble::checkpoint {
namespace {

Status check_module(FolderCheck& check, const Quantization& claims, const StoredModule& module) {
  NIBBLE_TRY(claimed, claims.format_of(module.name));
  if (!module.quantized()) {
    // Embeddings and convolutions are no "Linear".
    const bool linear = module.weight->info->shape.size() == 2 && !module.name.ends_with("embed_tokens");
    if (claimed.quantized() && linear) check.problem("{}: unquantized, but a config group claims it", module.name);
    return {};
  }
  if (!claimed.quantized()) {
    check.problem("{}: quantized, but no config group claims it", module.name);
    return {};
  }
  const bool four_bits = claimed.format == Format::nvfp4;
  if (four_bits != module.four_bits()) {
    check.problem("{}: expected {} bits, as the config says, got {}", module.name, four_bits ? 4 : 8,
                  module.weight->info->text());
    return {};
  }
  check.check_tensors(module, claimed.inputs != Inputs::a16);
  return {};
}

Result<std::vector<Status>> find_problems(const Path& folder, const SafetensorsFolder* source) {
  NIBBLE_TRY(text, read_file(folder / "config.json"));
  NIBBLE_TRY(json, parse_json(text, "config.json"));
  NIBBLE_TRY(config, model::parse_config(json));
  NIBBLE_TRY(claims, read_quantization(json, {}));
  if (claims.layout != Layout::compressed_tensors) {
    return corrupt("quant_method: expected compressed-tensors, got {}", claims.quantized() ? "modelopt" : "none");
  }
  NIBBLE_TRY(tensors, SafetensorsFolder::open(folder));
  FolderCheck check(tensors, Layout::compressed_tensors);
  for (const StoredModule& module : check.modules()) NIBBLE_RETURN_IF_ERROR(check_module(check, claims, module));
  for (const CompressedTensorsConfig::Group& group : claims.compressed.groups) {
    for (const ModuleTarget& target : group.targets) {
      if (target.kind() == ModuleTarget::Kind::name && check.find(target.name()) == nullptr) {
        check.problem("{}: expected a weight, as a config group claims it, got none", target.name());
      }
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

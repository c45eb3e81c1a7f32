#include "checkpoint/adapter.h"

#include <cmath>

#include "checkpoint/fingerprint.h"
#include "model/names.h"

namespace nibble::checkpoint {
namespace {

constexpr std::string_view kBase = "base_model.model.";
constexpr const char* kHint = "nibble merges plain LoRA: merge this adapter with PEFT and use the result";

/// MODULE and A or B of a tensor's name.
struct LoraName {
  std::string_view module;
  bool is_a;
};

std::optional<LoraName> parse_name(std::string_view name) {
  if (!name.starts_with(kBase)) return std::nullopt;
  name.remove_prefix(kBase.size());
  for (const char side : {'A', 'B'}) {
    for (const char* adapter : {"", ".default"}) {
      const std::string suffix = fmt::format(".lora_{}{}.weight", side, adapter);
      if (!name.ends_with(suffix) || name.size() == suffix.size()) continue;
      return LoraName{name.substr(0, name.size() - suffix.size()), side == 'A'};
    }
  }
  return std::nullopt;
}

/// What a tensor that is no A or B is, for people.
std::string_view kind_of(std::string_view name) {
  if (name.find("lora_magnitude_vector") != std::string_view::npos) return "a magnitude vector of DoRA";
  if (name.find("lora_embedding_") != std::string_view::npos) return "an adapter of the embedding";
  if (name.find("modules_to_save") != std::string_view::npos) return "a module saved whole";
  if (name.find("lora_") == std::string_view::npos) return "a tensor saved whole";
  return "another tensor";
}

bool is_float(std::optional<DType> type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16;
}

Result<std::string> read_part(const Path& folder, const char* file) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored)) {
    return not_found("adapter: expected a folder, got none ({})", folder.string())
        .with_hint("give a folder that PEFT or Unsloth saved");
  }
  if (!std::filesystem::exists(folder / file, ignored)) {
    const bool pickled = std::filesystem::exists(folder / "adapter_model.bin", ignored);
    return not_found("{}: expected in the adapter's folder, got none ({})", file, folder.string())
        .with_hint(pickled ? "save the adapter again as safetensors" : "give a folder that PEFT or Unsloth saved");
  }
  return (folder / file).string();
}

}  // namespace

Result<Adapter> Adapter::open(const Path& folder) {
  NIBBLE_TRY(config_file, read_part(folder, kAdapterConfigFile));
  NIBBLE_TRY(text, read_file(config_file, uint64_t{16} << 20));
  NIBBLE_TRY(json, parse_json(text, kAdapterConfigFile));
  NIBBLE_TRY(config, AdapterConfig::parse(json));
  NIBBLE_TRY(weights_file, read_part(folder, kAdapterWeightsFile));
  NIBBLE_TRY(file, Safetensors::open(weights_file));
  Adapter out(std::move(config), std::move(file));
  std::error_code ignored;
  const Path absolute = std::filesystem::weakly_canonical(folder, ignored);
  out.name_ = absolute.filename().empty() ? "adapter" : absolute.filename().string();
  const std::string_view parts[] = {text, out.file_.header()};
  out.fingerprint_ = checkpoint::fingerprint(parts);
  for (const TensorInfo& info : out.file_.tensors()) NIBBLE_RETURN_IF_ERROR(out.add_tensor(info));
  NIBBLE_RETURN_IF_ERROR(out.check_modules());
  return out;
}

Status Adapter::add_tensor(const TensorInfo& info) {
  const std::optional<LoraName> name = parse_name(info.name);
  if (!name) {
    return unsupported("{}: expected {}MODULE.lora_A.weight or lora_B.weight, got {} ({})", info.name, kBase,
                       kind_of(info.name), kAdapterWeightsFile)
        .with_hint(kHint);
  }
  if (info.shape.size() != 2 || !is_float(info.type)) {
    return unsupported("{}: expected a matrix in F32, BF16 or F16, got {} ({})", info.name, info.text(),
                       kAdapterWeightsFile)
        .with_hint("only linears have adapters that nibble can merge");
  }
  wrapped_ |= name->module.starts_with(model::kWrappedPrefix);
  AdaptedModule& module = modules_[model::canonical_module(name->module)];
  const TensorInfo*& slot = name->is_a ? module.a : module.b;
  if (slot != nullptr) {
    return corrupt("{}: expected one tensor of this module, got {} too ({})", info.name, slot->name,
                   kAdapterWeightsFile);
  }
  slot = &info;
  module.written = name->module;
  return {};
}

Status Adapter::check_modules() {
  if (modules_.empty()) {
    return corrupt("adapter: expected lora_A and lora_B tensors, got none ({})", kAdapterWeightsFile)
        .with_hint("the adapter was saved without its weights");
  }
  for (auto& [name, module] : modules_) {
    if (module.a == nullptr || module.b == nullptr) {
      return corrupt("{}: expected lora_A and lora_B, got lora_{} alone ({})", module.written,
                     module.a == nullptr ? 'B' : 'A', kAdapterWeightsFile)
          .with_hint("the adapter is incomplete: fetch it again");
    }
    NIBBLE_TRY(target, config_.is_target(module.written));
    if (!target) {
      return corrupt("{}: expected a module that target_modules names, got tensors of another ({})", module.written,
                     kAdapterWeightsFile)
          .with_hint("the weights and adapter_config.json do not belong together");
    }
    NIBBLE_TRY(rank, config_.rank_of(module.written));
    if (module.a->shape[0] != rank || module.b->shape[1] != rank) {
      return corrupt("{}: expected lora_A [{},in] and lora_B [out,{}] as the config says, got {} and {} ({})",
                     module.written, rank, rank, module.a->text(), module.b->text(), kAdapterWeightsFile)
          .with_hint("the weights and adapter_config.json do not belong together");
    }
    NIBBLE_TRY(scale, config_.scale_of(module.written));
    module.scale = static_cast<float>(scale);
  }
  for (const std::string& target : config_.targets()) {
    bool found = false;
    for (const auto& [name, module] : modules_) found |= names_module(target, module.written);
    if (!found) {
      return corrupt("{}: expected tensors of this target, got none ({})", target, kAdapterWeightsFile)
          .with_hint("the adapter is incomplete, or target_modules names what its base does not have");
    }
  }
  return {};
}

const AdaptedModule* Adapter::find(std::string_view module) const {
  const auto at = modules_.find(model::canonical_module(module));
  return at == modules_.end() ? nullptr : &at->second;
}

Status Adapter::wrong_base(std::string message) const {
  return Status(Code::invalid_argument, std::move(message))
      .with_hint(config_.base_model().empty() ? "take the base that the adapter was trained on"
                                              : "the adapter was trained on " + config_.base_model());
}

Status Adapter::check_shape(std::string_view module, const AdaptedModule& adapted, const Tensor& base) const {
  if (base.dtype() != DType::f32 && base.dtype() != DType::bf16 && base.dtype() != DType::f16) {
    return invalid_argument("adapter: {}: expected full-precision weights to merge into, got {}", module,
                            nibble::name(base.dtype()))
        .with_hint("merging into quantized weights would round the adapter away: merge into the BF16 folder");
  }
  if (base.shape() == Shape{adapted.out(), adapted.in()}) return {};
  return wrong_base(fmt::format("adapter: {}: expected a base weight [{},{}] as lora_B and lora_A say, got {}", module,
                                adapted.out(), adapted.in(), base.shape().text()));
}

Status Adapter::check_base(const model::Weights& base) const {
  std::map<std::string, const ops::Linear*, std::less<>> linears;
  Status status;
  base.for_each_linear([&](std::string_view module, const ops::Linear& linear) {
    const bool fp8 = linear.format == ops::WeightFormat::fp8;
    if (status.ok() && (fp8 || linear.format == ops::WeightFormat::nvfp4)) {
      status = invalid_argument("adapter: {}: expected full-precision weights to merge into, got {}", module,
                                fp8 ? "fp8" : "nvfp4")
                   .with_hint(
                       "merging into quantized weights would round the adapter away: merge into the BF16 folder and "
                       "quantize again");
    }
    linears[model::canonical_module(module)] = &linear;
  });
  NIBBLE_RETURN_IF_ERROR(status);
  for (const auto& [module, adapted] : modules_) {
    const std::string tensor = module + ".weight";
    if (model::part_of(tensor) == model::Part::visual || model::part_of(tensor) == model::Part::mtp) continue;
    if (base.tied && module == "lm_head") {
      return unsupported("adapter: lm_head: expected a head of its own to merge into, got one that is the embedding")
          .with_hint("untie the base first, or train without lm_head");
    }
    const auto linear = linears.find(module);
    if (linear == linears.end()) {
      return wrong_base(
          fmt::format("adapter: {}: expected a linear of the base, which has {} layers, got none of that "
                      "name",
                      adapted.written, base.config.layers));
    }
    NIBBLE_RETURN_IF_ERROR(check_shape(module, adapted, linear->second->weight));
  }
  if (!config_.complete()) return {};
  for (const auto& [module, linear] : linears) {
    if (modules_.contains(module)) continue;
    std::string written = module;
    if (wrapped_ && written.starts_with(model::kTextPrefix)) {
      written = std::string(model::kWrappedPrefix) + written.substr(model::kTextPrefix.size());
    }
    NIBBLE_TRY(target, config_.is_target(written));
    if (target) {
      return corrupt("adapter: {}: expected lora_A and lora_B, as target_modules names it, got neither ({})", written,
                     kAdapterWeightsFile)
          .with_hint("the adapter is incomplete, or belongs to another base");
    }
  }
  return {};
}

}  // namespace nibble::checkpoint

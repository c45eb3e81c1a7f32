#include "model/names.h"

namespace nibble::model {
namespace {

constexpr std::string_view kWeight = ".weight";

class SlotCollector : public WeightsVisitor {
 public:
  void linear(const std::string& name, ops::Linear&, int64_t out, int64_t in) override {
    slots.push_back({name + std::string(kWeight), {out, in}, TensorKind::linear, DType::bf16});
  }
  void tensor(const std::string& name, Tensor&, const Shape& shape, TensorKind kind) override {
    const bool wide = kind == TensorKind::a_log || kind == TensorKind::gated_norm;
    slots.push_back({name, shape, kind, wide ? DType::f32 : DType::bf16});
  }

  std::vector<TensorSlot> slots;
};

}  // namespace

Part part_of(std::string_view name) {
  if (name.starts_with("mtp.")) return Part::mtp;
  if (name.starts_with("model.visual.")) return Part::visual;
  if (name.starts_with("lm_head.")) return Part::text;
  for (std::string_view prefix : {kWrappedPrefix, kTextPrefix}) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view rest = name.substr(prefix.size());
    if (rest.starts_with("embed_tokens.") || rest.starts_with("layers.") || rest.starts_with("norm.")) {
      return Part::text;
    }
  }
  return Part::other;
}

std::vector<TensorSlot> text_slots(const Config& config, std::string_view prefix, bool tied) {
  Weights weights = blank_weights(config, prefix, tied);
  SlotCollector collector;
  visit_weights(weights, collector);
  return std::move(collector.slots);
}

std::vector<TensorSlot> mtp_slots(const Config& config, int64_t layers) {
  const int64_t h = config.hidden;
  SlotCollector collector;
  collector.slots = {{"mtp.fc.weight", {h, 2 * h}, TensorKind::linear, DType::bf16},
                     {"mtp.norm.weight", {h}, TensorKind::norm, DType::bf16},
                     {"mtp.pre_fc_norm_embedding.weight", {h}, TensorKind::norm, DType::bf16},
                     {"mtp.pre_fc_norm_hidden.weight", {h}, TensorKind::norm, DType::bf16}};
  BlockWeights block;
  block.attention.emplace();
  for (int64_t i = 0; i < layers; ++i) visit_block(config, fmt::format("mtp.layers.{}.", i), block, collector);
  return std::move(collector.slots);
}

Result<std::string_view> find_prefix(const std::function<bool(std::string_view)>& has_tensor) {
  constexpr std::string_view kEmbed = "embed_tokens.weight";
  const auto has = [&](std::string_view prefix) { return has_tensor(fmt::format("{}{}", prefix, kEmbed)); };
  const bool text = has(kTextPrefix), wrapped = has(kWrappedPrefix);
  if (text && wrapped) {
    return corrupt("embedding: expected one of {}{} and {}{}, got both", kTextPrefix, kEmbed, kWrappedPrefix, kEmbed);
  }
  if (text) return kTextPrefix;
  if (wrapped) return kWrappedPrefix;
  if (has("model.language_model.language_model.")) {
    return corrupt("embedding: expected {}{}, got model.language_model.language_model.{}", kWrappedPrefix, kEmbed,
                   kEmbed)
        .with_hint("the file was saved with a repeated prefix: save the model again with a newer transformers");
  }
  return corrupt("embedding: expected {}{} or {}{}, got neither", kTextPrefix, kEmbed, kWrappedPrefix, kEmbed)
      .with_hint("is this a complete Qwen3.5 checkpoint, and not an adapter?");
}

std::string_view module_name(std::string_view name) {
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return name;
}

std::string canonical_module(std::string_view module) {
  if (module.starts_with(kWrappedPrefix)) {
    return std::string(kTextPrefix) + std::string(module.substr(kWrappedPrefix.size()));
  }
  return std::string(module);
}

}  // namespace nibble::model

#include "quantize/plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "checkpoint/fused_linears.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/quantization.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

using checkpoint::kWeightSuffix;
using model::Part;

constexpr std::array<std::string_view, 10> kLinears = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",        "self_attn.o_proj",      "mlp.gate_proj",
    "mlp.up_proj",      "mlp.down_proj",    "linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.out_proj"};

// Why a tensor that is none of kLinears stays. Tried in this order.
struct Rule {
  std::string_view part;  // of the name
  const char* reason;
};
constexpr Rule kRules[] = {
    {"visual", "vision tower"},
    {"vision", "vision tower"},
    {"norm", "norm"},
    {"conv1d", "convolution"},
    {"in_proj_a", "decay gate, too small to matter and sensitive"},
    {"in_proj_b", "write gate, too small to matter and sensitive"},
    {"A_log", "decay parameter"},
    {"dt_bias", "decay parameter"},
    {"embed_tokens", "embedding"},
    {"router", "router"},
    {"shared_expert_gate", "router"},
    {"mlp.gate.", "router"},
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// "model.layers.<digits>.<one of kLinears>"
bool is_main_linear(std::string_view module) {
  constexpr std::string_view kLayers = "model.layers.";
  const std::string text = model::canonical_module(module);
  if (!text.starts_with(kLayers)) return false;
  const size_t digits_end = text.find_first_not_of("0123456789", kLayers.size());
  if (digits_end == std::string::npos || digits_end == kLayers.size() || text[digits_end] != '.') return false;
  const std::string_view rest = std::string_view(text).substr(digits_end + 1);
  return std::find(kLinears.begin(), kLinears.end(), rest) != kLinears.end();
}

bool is_float(const TensorInfo& info) {
  return info.type == DType::f32 || info.type == DType::bf16 || info.type == DType::f16;
}

bool matches(const std::string& pattern, const PlannedTensor& tensor) {
  const std::string text_pattern = model::canonical_module(pattern);
  return checkpoint::matches_module(text_pattern, model::canonical_module(tensor.source->name)) ||
         checkpoint::matches_module(text_pattern, model::canonical_module(tensor.module));
}

// Why the tensor stays as it is; nothing when it becomes NVFP4.
std::optional<std::string> reason_to_stay(const PlannedTensor& tensor, bool tied) {
  const TensorInfo& info = *tensor.source;
  if (model::part_of(info.name) == Part::mtp) return "draft head (MTP)";
  if (tensor.module == "lm_head") return tied ? "output head, tied to the embedding" : "output head";
  if (!tensor.module.empty() && is_main_linear(tensor.module)) {
    if (!is_float(info)) return fmt::format("stored as {}", info.dtype);
    if (info.shape.size() != 2) return fmt::format("expected two dimensions, got {}", info.shape.size());
    if (info.shape[1] % kNvfp4Block != 0 || info.bytes == 0) {
      return fmt::format("{} columns are not a positive multiple of 16", info.shape[1]);
    }
    return std::nullopt;
  }
  for (const Rule& rule : kRules) {
    if (contains(info.name, rule.part)) return rule.reason;
  }
  return "not a linear of the main stack";
}

PlannedTensor describe(const TensorInfo& info, const PlanOptions& options) {
  PlannedTensor tensor;
  tensor.source = &info;
  tensor.bytes = info.bytes;
  if (info.name.ends_with(kWeightSuffix)) tensor.module = info.name.substr(0, info.name.size() - kWeightSuffix.size());
  const std::optional<std::string> reason = reason_to_stay(tensor, options.tied);
  if (!reason && options.quantize) tensor.format = Format::nvfp4;
  tensor.reason = reason.value_or("linear of the main stack");
  return tensor;
}

Status apply_excludes(const std::vector<std::string>& patterns, Plan& plan) {
  for (const std::string& pattern : patterns) {
    bool matched = false;
    for (PlannedTensor& tensor : plan.tensors) {
      if (!matches(pattern, tensor)) continue;
      matched = true;
      if (tensor.quantized()) {
        tensor.format = Format::unchanged;
        tensor.reason = fmt::format("excluded by {}", pattern);
      }
    }
    if (!matched) {
      return invalid_argument("exclude: expected a pattern that matches a tensor, got \"{}\", which matches none",
                              pattern)
          .with_hint(
              "name parts of the module, as in \"mlp.down_proj\" or \"*layers.3.*\"; nibble inspect DIR lists names");
    }
  }
  return {};
}

// Numbers the fused groups, and leaves a group alone whose members do not all become NVFP4.
void form_groups(Plan& plan) {
  std::map<std::string, std::vector<PlannedTensor*>> members;
  for (PlannedTensor& tensor : plan.tensors) {
    if (tensor.module.empty() || !is_main_linear(tensor.module)) continue;
    members[checkpoint::fused_module(tensor.module)].push_back(&tensor);
  }
  for (auto& [name, group] : members) {
    const auto odd = std::find_if(group.begin(), group.end(), [](const PlannedTensor* t) { return !t->quantized(); });
    if (odd == group.end()) {
      for (PlannedTensor* tensor : group) tensor->group = plan.groups;
      ++plan.groups;
      continue;
    }
    for (PlannedTensor* tensor : group) {
      if (!tensor->quantized()) continue;
      tensor->format = Format::unchanged;
      tensor->reason = fmt::format("servers fuse it with {}, which stays", (*odd)->module);
    }
  }
}

// The unquantized linears and convolutions, which the config files must name. Everything in the vision tower and the
// draft head is covered by one wildcard each; lm_head is named even when tied, as servers create the module all the
// same.
std::vector<std::string> excluded_modules(const Plan& plan) {
  std::set<std::string> names = {"lm_head"};
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.quantized()) continue;
    const std::string& name = tensor.source->name;
    if (model::part_of(name) == Part::mtp) {
      names.insert("mtp*");
    } else if (const size_t visual = name.find("visual"); visual != std::string::npos) {
      names.insert(name.substr(0, visual) + "visual*");
    } else if (!tensor.module.empty() && tensor.source->shape.size() >= 2) {
      names.insert(tensor.module);
    }
  }
  return {names.begin(), names.end()};
}

uint64_t quantized_bytes(const TensorInfo& info, bool quantized_inputs) {
  const auto elements = static_cast<uint64_t>(info.shape[0]) * static_cast<uint64_t>(info.shape[1]);
  return elements / 2 + elements / kNvfp4Block + sizeof(float) * (quantized_inputs ? 2 : 1);
}

// What a tensor contributes to model::bytes_per_token: matrices as a whole, of an untied embedding one row.
uint64_t bytes_per_token(const PlannedTensor& tensor, const PlanOptions& options) {
  const TensorInfo& info = *tensor.source;
  if (model::part_of(info.name) != Part::text || tensor.module.empty() || info.shape.size() != 2) return 0;
  if (tensor.module == "lm_head") return options.tied ? 0 : tensor.bytes;
  if (tensor.module.ends_with("embed_tokens") && !options.tied) {
    return tensor.bytes / std::max<uint64_t>(1, static_cast<uint64_t>(info.shape[0]));
  }
  return tensor.quantized() ? quantized_bytes(info, false) - sizeof(float) : tensor.bytes;
}

}  // namespace

Result<Plan> make_plan(std::span<const TensorInfo* const> tensors, const PlanOptions& options) {
  Plan plan;
  for (const TensorInfo* info : tensors) plan.tensors.push_back(describe(*info, options));
  NIBBLE_RETURN_IF_ERROR(apply_excludes(options.exclude, plan));
  form_groups(plan);
  plan.exclude_modules = excluded_modules(plan);
  for (PlannedTensor& tensor : plan.tensors) {
    if (tensor.quantized()) {
      tensor.bytes = quantized_bytes(*tensor.source, options.quantized_inputs);
      ++plan.quantized;
    }
    plan.source_bytes += tensor.source->bytes;
    plan.bytes += tensor.bytes;
    plan.bytes_per_token += bytes_per_token(tensor, options);
  }
  if (plan.quantized == 0 && options.quantize) {
    return invalid_argument("plan: expected linears that can become NVFP4, got none among {} tensors", tensors.size())
        .with_hint("nibble inspect DIR shows what the folder holds");
  }
  return plan;
}

}  // namespace nibble::quantize

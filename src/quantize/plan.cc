#include "quantize/plan.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "checkpoint/fused_linears.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/name_pattern.h"
#include "model/names.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

using checkpoint::kWeightSuffix;
using model::Part;

constexpr std::string_view kHead = "lm_head";
constexpr std::string_view kLayers = "model.layers.";

constexpr std::array<std::string_view, 10> kLinears = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",        "self_attn.o_proj",      "mlp.gate_proj",
    "mlp.up_proj",      "mlp.down_proj",    "linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.out_proj"};

// Why a tensor that is none of kLinears stays. Tried in this order.
struct Reason {
  std::string_view part;  // of the name
  const char* text;
  bool unless_named = false;  // a rule that spells its name out quantizes it
};
constexpr Reason kReasons[] = {
    {"visual", "vision tower"},
    {"vision", "vision tower"},
    {"norm", "norm"},
    {"conv1d", "convolution"},
    {"in_proj_a", "decay gate, too small to matter and sensitive", true},
    {"in_proj_b", "write gate, too small to matter and sensitive", true},
    {"A_log", "decay parameter"},
    {"dt_bias", "decay parameter"},
    {"embed_tokens", "embedding"},
    {"router", "router", true},
    {"shared_expert_gate", "router", true},
    {"mlp.gate.", "router", true},
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The layer of "model.layers.<digits>.<rest>", under either prefix.
struct LayerName {
  int64_t layer = -1;
  std::string rest;
};
LayerName layer_of(std::string_view name) {
  constexpr size_t kMaxDigits = 9;
  const std::string text = model::canonical_module(name);
  if (!text.starts_with(kLayers)) return {};
  const size_t end = text.find_first_not_of("0123456789", kLayers.size());
  if (end == std::string::npos || end == kLayers.size() || text[end] != '.' || end - kLayers.size() > kMaxDigits) {
    return {};
  }
  return {std::stoll(text.substr(kLayers.size(), end - kLayers.size())), text.substr(end + 1)};
}

bool is_main_linear(std::string_view module) {
  const LayerName name = layer_of(module);
  return name.layer >= 0 && std::find(kLinears.begin(), kLinears.end(), name.rest) != kLinears.end();
}

bool is_float(const TensorInfo& info) {
  return info.type == DType::f32 || info.type == DType::bf16 || info.type == DType::f16;
}

// Which rules reach a tensor: none, all that match it, those that spell its name out.
enum class Reach : uint8_t { never, matched, named };

struct Described {
  Reach reach = Reach::never;
  std::string reason;
};

// Tensors that a rule may reach must be float matrices.
Described reachable(const TensorInfo& info, Reach reach, std::string reason) {
  if (!is_float(info)) return {Reach::never, fmt::format("stored as {}", info.dtype)};
  if (info.shape.size() != 2) {
    return {Reach::never, fmt::format("expected two dimensions, got {}", info.shape.size())};
  }
  if (info.bytes == 0) {
    return {Reach::never, fmt::format("{} columns are not a positive multiple of 16", info.shape[1])};
  }
  return {reach, std::move(reason)};
}

Described describe(const PlannedTensor& tensor, bool tied) {
  const TensorInfo& info = *tensor.source;
  if (model::part_of(tensor.name) == Part::mtp) return {Reach::never, "draft head (MTP)"};
  if (tensor.module == kHead) {
    return reachable(info, Reach::named, tied ? "output head, tied to the embedding" : "output head");
  }
  if (is_main_linear(tensor.module)) return reachable(info, Reach::matched, "linear of the main stack");
  for (const Reason& reason : kReasons) {
    if (!contains(tensor.name, reason.part)) continue;
    if (reason.unless_named && !tensor.module.empty()) return reachable(info, Reach::named, reason.text);
    return {Reach::never, reason.text};
  }
  return {Reach::never, "not a linear of the main stack"};
}

uint64_t elements_of(const PlannedTensor& tensor) {
  uint64_t elements = 1;
  for (int64_t dim : tensor.source->shape) elements *= static_cast<uint64_t>(dim);
  return elements;
}

// What one pass over the weight reads: codes, scales of blocks and channels, the branch; no scalars.
uint64_t read_bytes(const PlannedTensor& tensor) {
  const std::vector<int64_t>& shape = tensor.source->shape;
  switch (tensor.format) {
    case Format::unchanged:
      return tensor.source->bytes;
    case Format::fp8:
      return elements_of(tensor);
    case Format::fp8_channel:
      return elements_of(tensor) + sizeof(float) * static_cast<uint64_t>(shape[0]);
    case Format::nvfp4:
      return elements_of(tensor) / 2 + elements_of(tensor) / kNvfp4Block +
             size_of(DType::bf16) * static_cast<uint64_t>(tensor.rank * (shape[0] + shape[1]));
  }
  return 0;
}

uint64_t stored_bytes(const PlannedTensor& tensor) {
  if (!tensor.quantized()) return tensor.source->bytes;
  const uint64_t scalars = (tensor.format == Format::fp8_channel ? 0 : 1) + (tensor.inputs == Inputs::a16 ? 0 : 1);
  return read_bytes(tensor) + sizeof(float) * scalars;
}

class Planner {
 public:
  Planner(std::span<const TensorInfo* const> tensors, const PlanOptions& options) : options_(options) {
    for (const TensorInfo* info : tensors) add(*info, info->name);
    if (options.tied) add_tied_head();
    for (const PlannedTensor& tensor : plan_.tensors) layers_ = std::max(layers_, layer_of(tensor.name).layer + 1);
  }

  Result<Plan> plan() {
    for (const Rule& rule : options_.rules) NIBBLE_RETURN_IF_ERROR(apply(rule));
    NIBBLE_RETURN_IF_ERROR(apply_formats());
    for (const std::string& pattern : options_.exclude) NIBBLE_RETURN_IF_ERROR(exclude(pattern));
    keep_odd_columns();
    NIBBLE_RETURN_IF_ERROR(form_groups());
    NIBBLE_RETURN_IF_ERROR(settle_head());
    measure();
    if (plan_.quantized == 0 && !options_.rules.empty()) {
      return invalid_argument("plan: expected linears that can be quantized, got none among {} tensors",
                              plan_.tensors.size())
          .with_hint("nibble inspect DIR shows what the folder holds");
    }
    return std::move(plan_);
  }

 private:
  // What is known of a tensor beside its place in the plan.
  struct State {
    Reach reach = Reach::never;
    bool kept = false;  // stays, whatever the rest of its group does, and takes the group along
  };

  void add(const TensorInfo& info, const std::string& name) {
    PlannedTensor tensor;
    tensor.source = &info;
    tensor.name = name;
    if (name.ends_with(kWeightSuffix)) tensor.module = name.substr(0, name.size() - kWeightSuffix.size());
    Described described = describe(tensor, options_.tied);
    tensor.reason = std::move(described.reason);
    tensor.quantizable = described.reach != Reach::never;
    state_.push_back({described.reach, !tensor.quantizable});
    plan_.tensors.push_back(std::move(tensor));
  }

  // The head of a tied model is the embedding under another name.
  void add_tied_head() {
    const PlannedTensor* embedding = nullptr;
    PlannedTensor* head = nullptr;
    for (PlannedTensor& tensor : plan_.tensors) {
      if (model::part_of(tensor.name) == Part::text && tensor.module.ends_with("embed_tokens")) embedding = &tensor;
      if (tensor.module == kHead) head = &tensor;
    }
    if (embedding == nullptr || head != nullptr) return;
    tied_head_ = true;
    add(*embedding->source, std::string(kHead) + std::string(kWeightSuffix));
  }

  template <class Matches, class Reached>
  Status require(const std::string& what, const std::string& pattern, Matches&& matches, Reached&& reached) const {
    bool any = false;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      if (!matches(plan_.tensors[i])) continue;
      if (reached(i)) return {};
      any = true;
    }
    std::vector<std::string> names;
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (tensor.quantizable) names.push_back(tensor.module);
    }
    const std::vector<std::string> nearest = checkpoint::nearest_names(pattern, names);
    const std::string hint = nearest.empty() ? "nibble inspect DIR lists the names"
                                             : fmt::format("the nearest names are {}", fmt::join(nearest, ", "));
    if (!any) {
      return invalid_argument("{}: expected a pattern that matches a tensor, got \"{}\", which matches none", what,
                              pattern)
          .with_hint(hint);
    }
    return invalid_argument("{}: expected a pattern of tensors that can be quantized, got \"{}\", which matches none",
                            what, pattern)
        .with_hint(hint);
  }

  static bool matches(const std::string& pattern, const PlannedTensor& tensor) {
    return checkpoint::matches_name(pattern, tensor.name) ||
           (!tensor.module.empty() && checkpoint::matches_name(pattern, tensor.module));
  }

  bool reaches(const Rule& rule, size_t i) const {
    switch (state_[i].reach) {
      case Reach::never:
        return false;
      case Reach::matched:
        return matches(rule.match, plan_.tensors[i]);
      case Reach::named:
        return checkpoint::spells_module(rule.match, plan_.tensors[i].module);
    }
    return false;
  }

  Status apply(const Rule& rule) {
    NIBBLE_RETURN_IF_ERROR(require(
        "rule", rule.match, [&](const PlannedTensor& tensor) { return matches(rule.match, tensor); },
        [&](size_t i) { return reaches(rule, i); }));
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      if (!reaches(rule, i)) continue;
      const int64_t layer = layer_of(plan_.tensors[i].name).layer;
      if (rule.last_layers > 0 && (layer < 0 || layer < layers_ - rule.last_layers)) continue;
      choose(plan_.tensors[i], {rule.format, rule.inputs});
    }
    return {};
  }

  static void choose(PlannedTensor& tensor, FormatChoice choice) {
    tensor.format = choice.format;
    tensor.inputs = choice.inputs;
  }

  Status apply_formats() {
    std::set<std::string> used;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      PlannedTensor& tensor = plan_.tensors[i];
      if (state_[i].reach == Reach::never) continue;
      const auto choice = options_.formats.find(checkpoint::fused_module(tensor.module));
      if (choice == options_.formats.end()) continue;
      choose(tensor, choice->second);
      if (!tensor.quantized()) tensor.reason = "kept within the budget";
      used.insert(choice->first);
    }
    for (const auto& [group, choice] : options_.formats) {
      if (!used.contains(group)) return invalid_argument("formats: expected a fused group, got \"{}\"", group);
    }
    return {};
  }

  void keep(size_t i, std::string reason) {
    choose(plan_.tensors[i], {});
    plan_.tensors[i].reason = std::move(reason);
    state_[i].kept = true;
  }

  Status exclude(const std::string& pattern) {
    NIBBLE_RETURN_IF_ERROR(require(
        "exclude", pattern, [&](const PlannedTensor& tensor) { return matches(pattern, tensor); },
        [&](size_t i) { return state_[i].reach != Reach::never; }));
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      if (state_[i].reach == Reach::never || !matches(pattern, plan_.tensors[i])) continue;
      if (plan_.tensors[i].quantized()) keep(i, fmt::format("excluded by {}", pattern));
      state_[i].kept = true;
    }
    return {};
  }

  void keep_odd_columns() {
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const PlannedTensor& tensor = plan_.tensors[i];
      if (tensor.format != Format::nvfp4 || tensor.source->shape[1] % kNvfp4Block == 0) continue;
      keep(i, fmt::format("{} columns are not a positive multiple of 16", tensor.source->shape[1]));
    }
  }

  // Numbers the fused groups. A group one of whose members must stay stays; rules may not divide one.
  Status form_groups() {
    std::map<std::string, std::vector<size_t>> members;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const PlannedTensor& tensor = plan_.tensors[i];
      if (tensor.quantizable || is_main_linear(tensor.module)) {
        members[checkpoint::fused_module(tensor.module)].push_back(i);
      }
    }
    for (const auto& [name, group] : members) {
      const auto kept = std::find_if(group.begin(), group.end(), [&](size_t i) { return state_[i].kept; });
      if (kept != group.end()) {
        for (size_t i : group) {
          if (!plan_.tensors[i].quantized()) continue;
          keep(i, fmt::format("servers fuse it with {}, which stays", plan_.tensors[*kept].module));
        }
        continue;
      }
      const PlannedTensor& first = plan_.tensors[group.front()];
      for (size_t i : group) {
        PlannedTensor& tensor = plan_.tensors[i];
        if (tensor.format != first.format || tensor.inputs != first.inputs) {
          return invalid_argument("rules: {}: expected {} {} as for {}, with which servers fuse it, got {} {}",
                                  tensor.module, format_name(first.format), inputs_name(first.inputs), first.module,
                                  format_name(tensor.format), inputs_name(tensor.inputs));
        }
      }
      if (!first.quantized()) continue;
      for (size_t i : group) plan_.tensors[i].group = plan_.groups;
      ++plan_.groups;
    }
    return {};
  }

  // A tied head becomes a tensor of its own only where it is quantized and that is wanted.
  Status settle_head() {
    const auto head = std::find_if(plan_.tensors.begin(), plan_.tensors.end(),
                                   [](const PlannedTensor& tensor) { return tensor.module == kHead; });
    if (head == plan_.tensors.end() || !options_.tied || !head->quantized()) return {};
    if (!options_.untie) {
      return invalid_argument("plan: lm_head: expected a head of its own to quantize, got one tied to the embedding")
          .with_hint("--untie writes the head as a tensor of its own; --exclude lm_head leaves it tied");
    }
    plan_.untied = true;
    head->reason = "output head, no longer tied to the embedding";
    return {};
  }

  void measure() {
    uint64_t bits[2] = {}, weights[2] = {};  // of the main stack; of that and the head
    for (PlannedTensor& tensor : plan_.tensors) {
      if (options_.rank > 0 && tensor.format == Format::nvfp4 && is_main_linear(tensor.module)) {
        tensor.rank = std::min({options_.rank, tensor.source->shape[0], tensor.source->shape[1]});
      }
      if (!tensor.quantizable) continue;
      const bool main = is_main_linear(tensor.module);
      for (int with_head = main ? 0 : 1; with_head < (main || tensor.module == kHead ? 2 : 0); ++with_head) {
        bits[with_head] += 8 * read_bytes(tensor);
        weights[with_head] += elements_of(tensor);
      }
    }
    const auto average = [&](int i) {
      return weights[i] == 0 ? 0 : static_cast<double>(bits[i]) / static_cast<double>(weights[i]);
    };
    plan_.effective_bits = average(0);
    plan_.effective_bits_with_head = average(1);

    list_modules();
    if (tied_head_ && !plan_.untied) plan_.tensors.pop_back();
    const bool tied = options_.tied && !plan_.untied;
    for (PlannedTensor& tensor : plan_.tensors) {
      tensor.bytes = stored_bytes(tensor);
      plan_.quantized += tensor.quantized() ? 1 : 0;
      if (!(plan_.untied && tied_head_ && tensor.module == kHead)) plan_.source_bytes += tensor.source->bytes;
      plan_.bytes += tensor.bytes;
      plan_.bytes_per_token += bytes_per_token(tensor, tied);
    }
  }

  // Servers create lm_head even where it is tied, so it is listed all the same.
  void list_modules() {
    bool head = false;
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (tensor.module.empty() || tensor.source->shape.size() < 2) continue;
      head = head || tensor.module == kHead;
      if (tensor.quantized()) {
        plan_.modules.quantized.push_back({tensor.module, tensor.format, tensor.inputs, tensor.rank > 0});
      } else {
        plan_.modules.unquantized.push_back(tensor.module);
      }
    }
    if (!head) plan_.modules.unquantized.emplace_back(kHead);
  }

  // What a tensor contributes to model::bytes_per_token: matrices as a whole, of an untied embedding one row.
  static uint64_t bytes_per_token(const PlannedTensor& tensor, bool tied) {
    const TensorInfo& info = *tensor.source;
    if (model::part_of(tensor.name) != Part::text || tensor.module.empty() || info.shape.size() != 2) return 0;
    if (tensor.module == kHead && tied) return 0;
    if (tensor.module.ends_with("embed_tokens") && !tied) {
      return tensor.bytes / std::max<uint64_t>(1, static_cast<uint64_t>(info.shape[0]));
    }
    return read_bytes(tensor);
  }

  const PlanOptions& options_;
  Plan plan_;
  std::vector<State> state_;  // of plan_.tensors
  int64_t layers_ = 0;
  bool tied_head_ = false;  // the last tensor of the plan is the embedding as the head
};

}  // namespace

Result<Plan> make_plan(std::span<const TensorInfo* const> tensors, const PlanOptions& options) {
  return Planner(tensors, options).plan();
}

}  // namespace nibble::quantize

#include "train/memory_plan.h"

#include <algorithm>

#include "tensor/numeric.h"

namespace nibble::train {
namespace {

using model::Config;
using ops::MasterFormat;
using ops::MomentFormat;

/// Activations of one token that the backward of a block reads again, in elements; the MLP's own part apart. Norms are
/// computed again from their input and their scale.
struct BlockActivations {
  int64_t mixer = 0, mlp = 0;
};

BlockActivations delta_activations(const Config& c) {
  // Inputs of both halves; q, k, v before and after the convolution; z, the delta rule's output, its gated norm.
  return {2 * c.hidden + 2 * c.conv_dim() + 3 * c.value_dim() + 4 * c.value_heads, 3 * c.intermediate};
}

BlockActivations attention_activations(const Config& c) {
  // Inputs of both halves; the projections; q and k after norm and rope; the output before and after its gate.
  return {2 * c.hidden + c.q_proj_rows() + 2 * c.kv_dim() + c.q_dim() + c.kv_dim() + 2 * c.q_dim(), 3 * c.intermediate};
}

double bytes_per_trained(const PlanOptions& o, MomentFormat moments) {
  const double master = o.master == MasterFormat::bf16 ? 2 : o.bf16_copy ? 6 : 4;
  const double state = moments == MomentFormat::f32 ? 8 : moments == MomentFormat::bf16 ? 4 : 2 + 8. / 256;
  return master + state + static_cast<double>(size_of(o.gradient));
}

uint64_t bytes_of(double bytes) {
  return static_cast<uint64_t>(bytes);
}

uint64_t bytes_of(int64_t elements, DType type) {
  return static_cast<uint64_t>(elements) * size_of(type);
}

int64_t trained_of(const ParameterCounts& n, TrainedParts trainable) {
  switch (trainable) {
    case TrainedParts::all:
      return n.total();
    case TrainedParts::blocks:
      return n.quantizable() + n.small;
    default:
      return n.quantizable();
  }
}

// What is kept of all blocks between forward and backward, and what one block needs while its backward runs.
void add_activations(const Config& c, const PlanOptions& o, MemoryPlan& plan) {
  const auto add = [&](const char* what, int64_t elements) {
    plan.items.push_back({what, bytes_of(elements * o.tokens, o.activations)});
  };
  const BlockActivations delta = delta_activations(c), attention = attention_activations(c);
  const int64_t deltas = c.count(model::LayerType::linear_attention), attentions = c.layers - deltas;
  int64_t kept = c.layers * c.hidden;
  if (o.recompute != Recompute::all) kept = deltas * delta.mixer + attentions * attention.mixer;
  if (o.recompute == Recompute::none) kept += deltas * delta.mlp + attentions * attention.mlp;
  add("activations kept", kept);
  add("one block's backward", 2 * std::max(delta.mixer + delta.mlp, attention.mixer + attention.mlp));
}

void add_scratch(const Config& c, const PlanOptions& o, MemoryPlan& plan) {
  // A chunk of logits, f32 and as the operand of the two products of its backward.
  plan.items.push_back(
      {"head and loss", bytes_of(o.head_rows * c.vocab, DType::f32) +
                            (o.activations == DType::bf16 ? bytes_of(o.head_rows * c.vocab, DType::bf16) : 0)});
  // The largest linear: expanded one layer ahead, and its gradient in f32 when that is stored smaller.
  const int64_t largest = std::max({c.hidden * c.intermediate, c.hidden * c.q_proj_rows(), c.hidden * c.conv_dim()});
  uint64_t linear = o.cache == FakeQuantCache::packed ? 2 * bytes_of(largest, o.activations) : 0;
  if (o.gradient == DType::bf16) linear += bytes_of(largest, DType::f32);
  plan.items.push_back({"one linear", linear});
  // States of the delta rule, one every 64 tokens, and the scores of attention.
  const int64_t chunks = (o.tokens + 63) / 64;
  plan.items.push_back(
      {"delta rule states", bytes_of(chunks * c.value_heads * c.key_head_dim * c.value_head_dim, o.activations)});
}

std::string gigabytes(uint64_t bytes) {
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9);
}

struct Remedy {
  const char* flag;
  void (*apply)(PlanOptions& options);
};

// In the order of fits' contract.
constexpr Remedy kRemedies[] = {
    {"a teacher from a sidecar file",
     [](PlanOptions& o) {
       if (o.teacher == TeacherSource::resident) o.teacher = TeacherSource::sidecar;
     }},
    {"recompute all", [](PlanOptions& o) { o.recompute = Recompute::all; }},
    {"split master",
     [](PlanOptions& o) {
       if (o.master == MasterFormat::f32 && o.bf16_copy) o.master = MasterFormat::split;
       if (o.master == MasterFormat::split) o.bf16_copy = false;
     }},
    {"q8 moments", [](PlanOptions& o) { o.moments = MomentFormat::q8; }},
    {"bf16 gradients", [](PlanOptions& o) { o.gradient = DType::bf16; }},
    {"a packed cache",
     [](PlanOptions& o) {
       if (o.cache == FakeQuantCache::bf16) o.cache = FakeQuantCache::packed;
     }},
    {"micro-batches of 1024 tokens", [](PlanOptions& o) { o.tokens = std::min<int64_t>(o.tokens, 1024); }},
    {"a frozen embedding and head",
     [](PlanOptions& o) {
       if (o.trainable == TrainedParts::all) o.trainable = TrainedParts::blocks;
     }},
    {"a bf16 master", [](PlanOptions& o) { o.master = MasterFormat::bf16, o.bf16_copy = false; }},
};

}  // namespace

ParameterCounts count_parameters(const Config& c, bool tied) {
  const int64_t deltas = c.count(model::LayerType::linear_attention), attentions = c.layers - deltas;
  ParameterCounts n;
  n.mlp = c.layers * 3 * c.hidden * c.intermediate;
  n.attention = attentions * c.hidden * (c.q_proj_rows() + 2 * c.kv_dim() + c.q_dim());
  n.delta = deltas * c.hidden * (c.conv_dim() + 2 * c.value_dim());
  n.small =
      (2 * c.layers + 1) * c.hidden + attentions * 2 * c.head_dim +
      deltas * (2 * c.hidden * c.value_heads + c.conv_kernel * c.conv_dim() + 2 * c.value_heads + c.value_head_dim);
  n.embedding = c.vocab * c.hidden;
  n.head = tied ? 0 : c.vocab * c.hidden;
  return n;
}

uint64_t MemoryPlan::total() const {
  uint64_t bytes = 0;
  for (const PlanItem& item : items) bytes += item.bytes;
  return bytes;
}

std::string MemoryPlan::text() const {
  std::string out;
  for (const PlanItem& item : items) out += fmt::format("{:<24}{:>12}\n", item.what, gigabytes(item.bytes));
  return out + fmt::format("{:<24}{:>12}\n", "total", gigabytes(total()));
}

MemoryPlan plan_memory(const Config& config, bool tied, const PlanOptions& o) {
  const ParameterCounts n = count_parameters(config, tied);
  const int64_t trained = trained_of(n, o.trainable), frozen = n.total() - trained;
  // Small parameters keep f32 moments.
  const int64_t small = o.trainable == TrainedParts::linears ? 0 : n.small;
  const DType weight = o.master == MasterFormat::f32 && !o.bf16_copy ? DType::f32 : DType::bf16;
  MemoryPlan plan;
  plan.items.push_back(
      {"weights and optimizer", bytes_of(bytes_per_trained(o, o.moments) * static_cast<double>(trained - small) +
                                         bytes_per_trained(o, MomentFormat::f32) * static_cast<double>(small))});
  plan.items.push_back({"frozen weights", bytes_of(frozen, weight)});
  plan.state_bytes = plan.total();
  if (o.cache != FakeQuantCache::none) {
    const double bytes = o.cache == FakeQuantCache::bf16 ? 2 : .5 + 1. / kNvfp4Block;
    plan.items.push_back({"fake-quant cache", bytes_of(bytes * static_cast<double>(n.quantizable()))});
  }
  if (o.teacher == TeacherSource::resident) {
    const bool shares = o.share_frozen && o.trainable != TrainedParts::all;
    plan.items.push_back({"teacher", bytes_of(n.total() - (shares ? n.embedding + n.head : 0), weight)});
  }
  add_activations(config, o, plan);
  add_scratch(config, o, plan);
  plan.items.push_back({"reserve", o.reserve_bytes});
  std::erase_if(plan.items, [](const PlanItem& item) { return item.bytes == 0; });
  return plan;
}

Status fits(const Config& config, bool tied, const PlanOptions& options, uint64_t available_bytes) {
  const uint64_t needed = plan_memory(config, tied, options).total();
  if (needed <= available_bytes) return {};
  PlanOptions smaller = options;
  uint64_t bytes = needed;
  std::string words;
  for (const Remedy& remedy : kRemedies) {
    remedy.apply(smaller);
    const uint64_t now = plan_memory(config, tied, smaller).total();
    if (now == bytes) continue;
    bytes = now;
    words += (words.empty() ? "" : ", ") + std::string(remedy.flag);
    if (bytes <= available_bytes) break;
  }
  Status status = fail(Code::out_of_memory, "memory plan: expected at most {}, got {}", gigabytes(available_bytes),
                       gigabytes(needed));
  if (words.empty()) return std::move(status).with_hint("this model needs a larger machine");
  if (bytes > available_bytes) {
    return std::move(status).with_hint(fmt::format("even {} needs {}", words, gigabytes(bytes)));
  }
  return std::move(status).with_hint(fmt::format("{}: {}", words, gigabytes(bytes)));
}

}  // namespace nibble::train

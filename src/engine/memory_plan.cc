#include "engine/memory_plan.h"

#include <algorithm>

#include "model/batch_runner.h"
#include "tensor/device.h"

namespace nibble::engine {
namespace {

constexpr int64_t kShortestContext = 512, kContextStep = 256;
constexpr uint64_t kGraphBytes = uint64_t{128} << 20;  // what recorded steps take of the driver's memory, about

// In one unit throughout a plan: that of its total.
std::string size_text(uint64_t bytes, uint64_t total) {
  return total < uint64_t{1} << 30 ? fmt::format("{:.2f} MiB", static_cast<double>(bytes) / 0x1p20)
                                   : fmt::format("{:.2f} GiB", static_cast<double>(bytes) / 0x1p30);
}

uint64_t host_bytes(const model::Weights& weights) {
  uint64_t sum = weights.tied ? 0 : weights.embed.bytes();
  weights.for_each_linear([&](std::string_view, const ops::Linear& w) { sum += w.weight_bytes(); });
  return sum;
}

// Activations of one block in f32; a CPU's arena grows to what its ops ask for.
uint64_t cpu_scratch(const model::Config& c, int64_t rows) {
  return static_cast<uint64_t>(4 * rows * (4 * c.hidden + 2 * c.intermediate + c.conv_dim() + 3 * c.value_dim()));
}

std::vector<MemoryItem> items_of(const checkpoint::LoadedModel& model, const EngineOptions& options, int64_t context) {
  const model::Config& c = model.weights.config;
  const model::RunnerOptions runner = runner_options(options, context);
  const bool cuda = options.device.is_cuda();
  const DType kv = !cuda && options.numeric == Numeric::exact ? DType::f32 : DType::bf16;
  const uint64_t states = model::Slots::bytes_needed(c, options.slots, 0, kv);
  const uint64_t caches = model::Slots::bytes_needed(c, options.slots, context, kv) - states;
  const int64_t rows = model::BatchRunner::most_rows(runner);
  std::vector<MemoryItem> items = {
      {cuda ? "weights" : "weights, mapped", cuda ? model::device_bytes(model.weights) : host_bytes(model.weights)},
      {fmt::format("keys and values, {} x {} tokens", options.slots, context), caches},
      {"delta-rule states", states},
      {"logits, ids and counts", model::BatchRunner::fixed_bytes(c, runner)}};
  if (cuda) {
    items.push_back({"scratch", std::max<uint64_t>(model::batch_scratch_bytes(c, rows, options.slots, context),
                                                   model::kUploadBytes)});
    items.push_back({"recorded steps, about", kGraphBytes});
  } else {
    items.push_back({"activations, about", cpu_scratch(c, rows)});
  }
  std::erase_if(items, [](const MemoryItem& item) { return item.bytes == 0; });
  return items;
}

uint64_t sum_of(const std::vector<MemoryItem>& items) {
  uint64_t sum = 0;
  for (const MemoryItem& item : items) sum += item.bytes;
  return sum;
}

// The longest context, in steps, that `options` leave room for; 0: none.
int64_t longest_context(const checkpoint::LoadedModel& model, const EngineOptions& options, uint64_t limit) {
  const int64_t most = model.weights.config.max_positions;
  int64_t fits = 0, beyond = most / kContextStep + 1;
  while (fits + 1 < beyond) {
    const int64_t middle = fits + (beyond - fits) / 2;
    (sum_of(items_of(model, options, middle * kContextStep)) <= limit ? fits : beyond) = middle;
  }
  return fits * kContextStep < kShortestContext ? 0 : fits * kContextStep;
}

std::string hint_for(const checkpoint::LoadedModel& model, EngineOptions options, const MemoryPlan& plan) {
  std::string hint;
  const auto add = [&](const std::string& words) { hint += (hint.empty() ? "" : ", or ") + words; };
  if (const int64_t context = std::min(longest_context(model, options, plan.limit), plan.context - 1); context > 0) {
    add(fmt::format("--context {}", context));
  }
  while (options.slots > 1) {
    options.slots = options.slots / 2;
    if (sum_of(items_of(model, options, plan.context)) > plan.limit) continue;
    add(fmt::format("--slots {}", options.slots));
    break;
  }
  if (const int64_t context = hint.empty() ? longest_context(model, options, plan.limit) : 0; context > 0) {
    add(fmt::format("--slots 1 --context {}", context));
  }
  return hint.empty() ? "the weights alone leave no room: a smaller format (nibble quantize) or a larger limit"
                      : "it fits with " + hint;
}

}  // namespace

uint64_t MemoryPlan::total() const {
  return sum_of(items);
}

std::string MemoryPlan::text() const {
  std::string out = fmt::format("memory plan, {}\n", where);
  for (const MemoryItem& item : items)
    out += fmt::format("  {:<40}{:>12}\n", item.what, size_text(item.bytes, total()));
  out += fmt::format("  {:<40}{:>12}", "total", size_text(total(), total()));
  out += limit > 0 ? fmt::format(" of {} ({})\n", size_text(limit, limit), limit_words) : "\n";
  if (context_reduced) out += fmt::format("  the context is {} tokens, so that it fits\n", context);
  if (unified) out += "  the GPU shares this memory; pages of the file are given back as they are copied\n";
  return out;
}

Status fits(const MemoryPlan& plan, const std::string& hint) {
  if (plan.limit == 0 || plan.total() <= plan.limit) return {};
  const std::string what = plan.context > 0 ? fmt::format(" for {} x {} tokens", plan.slots, plan.context) : "";
  return out_of_memory("{}: expected {}{}, got {} ({})", plan.where, size_text(plan.total(), plan.total()), what,
                       size_text(plan.limit, plan.limit), plan.limit_words)
      .with_hint(hint);
}

Result<MemoryPlan> empty_plan(Device device, uint64_t memory_limit) {
  MemoryPlan plan;
  plan.where = "cpu";
  if (device.is_cuda()) {
    NIBBLE_TRY(info, open_device(device));
    plan.where = fmt::format("cuda:{}, {}", device.index, info.name);
    plan.unified = info.unified;
    const uint64_t kept = info.unified ? info.memory_bytes / 20 * 3 : 0;
    plan.limit = info.free_bytes - std::min(kept, info.free_bytes);
    plan.limit_words = "free";
  }
  if (memory_limit > 0 && (plan.limit == 0 || memory_limit < plan.limit)) {
    plan.limit = memory_limit;
    plan.limit_words = "--memory-limit";
  }
  return plan;
}

Result<MemoryPlan> plan_memory(const checkpoint::LoadedModel& model, const EngineOptions& options) {
  const model::Config& config = model.weights.config;
  NIBBLE_RETURN_IF_ERROR(check_options(config, options));
  NIBBLE_TRY(plan, empty_plan(options.device, options.memory_limit));
  plan.slots = options.slots;
  plan.context = context_of(config, options);
  plan.items = items_of(model, options, plan.context);
  const bool too_much = plan.limit > 0 && plan.total() > plan.limit;
  const int64_t longest = too_much && options.context == 0 ? longest_context(model, options, plan.limit) : 0;
  if (longest > 0) {
    plan.context = longest;
    plan.context_reduced = true;
    plan.items = items_of(model, options, longest);
  }
  if (too_much && longest == 0) return fits(plan, hint_for(model, options, plan));
  return std::move(plan);
}

}  // namespace nibble::engine

#include "train/memory_plan.h"

#include <algorithm>

#include "tensor/numeric.h"
#include "train/working_memory.h"

namespace nibble::train {
namespace {

using model::TensorKind;
using ops::MomentFormat;

/// Program, tokenizer and what else a run holds whatever the model.
constexpr uint64_t kProgramBytes = 48'000'000;

class Counter : public model::WeightsVisitor {
 public:
  void linear(const std::string& name, ops::Linear&, int64_t out, int64_t in) override {
    const int64_t n = out * in;
    if (name == "lm_head") {
      counts.head = n;
    } else if (!is_block_linear(name + ".weight", TensorKind::linear)) {
      counts.gates += n;
    } else {
      counts.quantizable += n;
      counts.in_and_out += in + out;
      counts.largest = std::max(counts.largest, n);
    }
  }
  void tensor(const std::string&, Tensor&, const Shape& shape, TensorKind kind) override {
    const bool norm = kind == TensorKind::norm || kind == TensorKind::gated_norm;
    int64_t& to = kind == TensorKind::embedding ? counts.embedding : norm ? counts.norms : counts.vectors;
    to += shape.elements();
  }

  ParameterCounts counts;
};

double moment_bytes(MomentFormat format) {
  return format == MomentFormat::f32 ? 8 : format == MomentFormat::bf16 ? 4 : 2 + 8. / 256;
}

uint64_t bytes_of(int64_t elements, double each) {
  return static_cast<uint64_t>(static_cast<double>(elements) * each);
}

struct Trained {
  int64_t matrices = 0, vectors = 0;
};

Trained trained_of(const ParameterCounts& n, const StudentOptions& o) {
  if (o.lora.rank > 0) return {};
  switch (o.trainable) {
    case Trainable::linears:
      return {n.quantizable, 0};
    case Trainable::linears_and_norms:
      return {n.quantizable, n.norms};
    case Trainable::all:
      break;
  }
  return {n.quantizable + n.gates + n.embedding + n.head, n.norms + n.vectors};
}

void add_state(const PlannedModel& model, const PlanOptions& o, MemoryPlan& plan) {
  const ParameterCounts n = count_parameters(model);
  const StudentOptions& s = o.student;
  const bool lora = s.lora.rank > 0;
  const Trained trained = trained_of(n, s);
  const int64_t moved = trained.matrices + trained.vectors;
  const auto file = static_cast<double>(size_of(model.dtype));
  // Linears that stay are copied all the same where others change.
  const int64_t linears = n.quantizable + n.gates + n.head;
  int64_t copied = 0;
  if (s.quantize || lora || o.merged_adapter) {
    copied = !lora && s.trainable == Trainable::all ? 0 : linears - trained.matrices;
  }
  const int64_t matrices = n.total() - n.norms - n.vectors;
  const int64_t mapped = matrices - trained.matrices - copied;

  const int64_t adapters = lora ? s.lora.rank * n.in_and_out : 0, adapted = lora ? n.quantizable : 0;
  plan.items.push_back({"masters", bytes_of(moved, 4) + bytes_of(adapters, 4)});
  plan.items.push_back({"gradients", bytes_of(moved + adapters + adapted, 4)});
  plan.items.push_back({"moments", bytes_of(moved + adapters, moment_bytes(s.moments))});
  plan.items.push_back({"LoRA bases", bytes_of(adapted, 4)});
  plan.items.push_back({"copied weights", bytes_of(copied, file)});
  if (o.merged_adapter) plan.items.push_back({"merged weights", bytes_of(n.quantizable, file)});
  const bool shared = o.teacher && o.teacher_is_source && !o.teacher_is_file;
  plan.items.push_back({"frozen weights", shared ? 0 : bytes_of(mapped, file)});
  plan.state_bytes = plan.total();
  plan.items.push_back({"vectors in f32", bytes_of(n.norms + n.vectors, 4)});
  if (s.quantize) plan.items.push_back({"4-bit codes", bytes_of(n.quantizable, 1.5 + 2. / kNvfp4Block)});
  if (o.teacher) {
    const ParameterCounts t = count_parameters(*o.teacher);
    const int64_t there = !o.teacher_is_file ? t.total() : t.head > 0 ? t.head : t.embedding;
    plan.items.push_back({"teacher", bytes_of(there, static_cast<double>(size_of(o.teacher->dtype)))});
  }
}

std::string size_text(uint64_t bytes, uint64_t scale) {
  const bool small = scale < 10'000'000'000;
  return fmt::format("{:.{}f} {}", static_cast<double>(bytes) * (small ? 1e-6 : 1e-9), small ? 1 : 2,
                     small ? "MB" : "GB");
}

struct Remedy {
  const char* flags;
  void (*apply)(PlanOptions& options);
};

// In the order of fits' contract.
constexpr Remedy kRemedies[] = {
    {"without --keep-traces", [](PlanOptions& o) { o.keep_traces = false; }},
    {"--sidecar FILE", [](PlanOptions& o) { o.teacher_is_file = o.teacher.has_value(); }},
    {"--batch 1 (with --accumulate)",
     [](PlanOptions& o) {
       o.batch.tokens = o.batch.longest;
       o.batch.sequences = 1;
     }},
    {"--moments q8", [](PlanOptions& o) { o.student.moments = MomentFormat::q8; }},
    {"--max-length 1024",
     [](PlanOptions& o) {
       if (o.batch.sequences > 1) return;  // the micro-batch is the smaller evil
       o.batch.tokens = o.batch.longest = std::min<int64_t>(o.batch.longest, 1024);
     }},
    {"--train linears",
     [](PlanOptions& o) {
       if (o.student.lora.rank == 0) o.student.trainable = Trainable::linears;
     }},
};

}  // namespace

ParameterCounts count_parameters(const PlannedModel& model) {
  model::Weights weights = model::blank_weights(model.config, "model.", model.tied);
  Counter counter;
  model::visit_weights(weights, counter);
  return counter.counts;
}

uint64_t MemoryPlan::total() const {
  uint64_t bytes = 0;
  for (const PlanItem& item : items) bytes += item.bytes;
  return bytes;
}

std::string MemoryPlan::text() const {
  std::string out;
  for (const PlanItem& item : items) out += fmt::format("{:<24}{:>12}\n", item.what, size_text(item.bytes, total()));
  return out + fmt::format("{:<24}{:>12}\n", "total", size_text(total(), total()));
}

MemoryPlan plan_memory(const PlannedModel& model, const PlanOptions& o) {
  MemoryPlan plan;
  add_state(model, o, plan);
  const WorkingMemory work = working_memory(model, o);
  plan.items.push_back({"sequence states", work.states});
  plan.items.push_back({"activations kept", work.kept});
  plan.items.push_back({"one block or the head", work.peak});
  plan.items.push_back({"program", kProgramBytes});
  plan.work_bytes = work.kept + work.peak;
  std::erase_if(plan.items, [](const PlanItem& item) { return item.bytes == 0; });
  return plan;
}

uint64_t usable_memory(uint64_t bytes) {
  return bytes - bytes / 10;
}

Status fits(const PlannedModel& model, const PlanOptions& options, uint64_t usable_bytes) {
  const uint64_t needed = plan_memory(model, options).total();
  if (needed <= usable_bytes) return {};
  PlanOptions smaller = options;
  uint64_t bytes = needed;
  std::string words;
  for (const Remedy& remedy : kRemedies) {
    remedy.apply(smaller);
    const uint64_t now = plan_memory(model, smaller).total();
    if (now >= bytes) continue;
    bytes = now;
    words += (words.empty() ? "" : ", ") + std::string(remedy.flags);
    if (bytes <= usable_bytes) break;
  }
  Status status = fail(Code::out_of_memory, "memory plan: expected at most {}, got {}", size_text(usable_bytes, needed),
                       size_text(needed, needed));
  if (words.empty()) return std::move(status).with_hint("this model needs a larger machine");
  if (bytes > usable_bytes) {
    return std::move(status).with_hint(fmt::format("even {} needs {}", words, size_text(bytes, needed)));
  }
  return std::move(status).with_hint(fmt::format("{}: {}", words, size_text(bytes, needed)));
}

}  // namespace nibble::train

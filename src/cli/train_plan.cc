#include "cli/train_plan.h"

#include "base/machine.h"
#include "cli/terminal.h"

namespace nibble::cli {

Result<train::PlannedModel> planned_model(const Path& dir) {
  train::PlannedModel model;
  const Path file = dir / "config.json";
  std::error_code error;
  const auto builtin = model::builtin_config(dir.string());
  if (builtin && !std::filesystem::exists(dir, error)) {
    model.config = *builtin;
  } else {
    NIBBLE_TRY(text, read_file(file, 1 << 20));
    NIBBLE_TRY(json, parse_json(text, file.string()));
    NIBBLE_TRY(config, model::parse_config(json, file.string()));
    model.config = std::move(config);
  }
  model.tied = model.config.tie_embeddings.value_or(false);
  model.dtype = model.config.dtype == DType::f32 ? DType::f32 : DType::bf16;
  return model;
}

Result<RunPlan> make_plan(const TrainFlags& flags, const train::PlannedModel& model, const train::BatchExtent& batch,
                          int threads) {
  train::PlanOptions options;
  options.student = flags.student;
  options.merged_adapter = !flags.adapter.empty();
  options.quantized_inputs = !flags.calib.empty();
  options.batch = batch;
  options.head_chunk = flags.trainer.loss.head_chunk;
  options.threads = threads;
  if (flags.kl > 0) {
    std::error_code error;
    options.teacher_is_source = flags.teacher.empty() || flags.teacher == flags.dir ||
                                std::filesystem::equivalent(flags.teacher, flags.dir, error);
    options.teacher_is_file = !flags.sidecar.empty();
    options.teacher = model;
    if (!options.teacher_is_source) {
      NIBBLE_TRY(teacher, planned_model(flags.teacher));
      options.teacher = std::move(teacher);
    }
  }
  RunPlan plan;
  plan.free_bytes = flags.memory_gb > 0 ? static_cast<uint64_t>(flags.memory_gb * 1e9) : available_memory_bytes();
  options.keep_traces = flags.traces >= 0;
  plan.memory = train::plan_memory(model, options);
  if (flags.traces == 0 && (!plan.free_bytes || plan.memory.total() > *plan.free_bytes / 2)) {
    options.keep_traces = false;
    plan.memory = train::plan_memory(model, options);
  }
  plan.keep_traces = options.keep_traces;
  if (plan.free_bytes) plan.verdict = train::fits(model, options, train::usable_memory(*plan.free_bytes));
  return plan;
}

std::string RunPlan::text() const {
  std::string text = "memory plan\n" + memory.text();
  if (!free_bytes) return text;
  return text + fmt::format("of {}, nine tenths of {} that are free\n", human_bytes(train::usable_memory(*free_bytes)),
                            human_bytes(*free_bytes));
}

Json RunPlan::json() const {
  Json items = Json::object();
  for (const train::PlanItem& item : memory.items) items[item.what] = item.bytes;
  Json json = {{"items", std::move(items)}, {"total_bytes", memory.total()}, {"fits", verdict.ok()}};
  if (free_bytes) json["usable_bytes"] = train::usable_memory(*free_bytes);
  if (!verdict.hint().empty()) json["hint"] = verdict.hint();
  return json;
}

}  // namespace nibble::cli

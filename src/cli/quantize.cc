#include "quantize/quantize.h"

#include <deque>

#include "base/log.h"
#include "base/sha256.h"
#include "checkpoint/adapter.h"
#include "cli/quantize_flags.h"
#include "cli/quantize_report.h"
#include "cli/terminal.h"
#include "gate/bench.h"
#include "gate/divergence.h"
#include "quantize/calibrated.h"
#include "quantize/target.h"
#include "text/chat_data.h"

namespace nibble::cli {
namespace {

constexpr int64_t kHoldout = 64;  // conversations at most

struct Conversations {
  std::vector<std::vector<int32_t>> calib, holdout;
};

/// What to calibrate on and, apart from it, what to measure on: --holdout, or else what --calib has beyond --samples,
/// or else its last tenth.
Result<Conversations> read_conversations(const QuantizeFlags& flags, const OpenModel& open) {
  Conversations out;
  const auto read = [&](const Path& file, int64_t limit) {
    return text::tokenize_chats(file, *open.chat_template, *open.tokenizer, limit);
  };
  const bool own_part = flags.holdout.empty();
  if (!flags.calib.empty()) {
    NIBBLE_TRY(chats, read(flags.calib, own_part && flags.samples > 0 ? flags.samples + kHoldout : flags.samples));
    out.calib = std::move(chats);
  }
  if (flags.holdout == "none") return out;
  if (!own_part) {
    NIBBLE_TRY(chats, read(flags.holdout, kHoldout));
    out.holdout = std::move(chats);
    return out;
  }
  const auto all = static_cast<int64_t>(out.calib.size());
  const int64_t tenth = std::min(kHoldout, all / 10);
  const int64_t kept = flags.samples > 0 && all > flags.samples ? flags.samples : all - tenth;
  out.holdout.assign(std::make_move_iterator(out.calib.begin() + kept), std::make_move_iterator(out.calib.end()));
  out.calib.resize(static_cast<size_t>(kept));
  return out;
}

/// The result in `made` against its source on conversations that it was not made from.
Result<std::optional<gate::Divergence>> measure(Context& cx, const Path& made, const OpenModel& open,
                                                const std::vector<std::vector<int32_t>>& holdout) {
  if (holdout.empty()) return std::optional<gate::Divergence>();
  NIBBLE_TRY(result, load_model(made, {}));
  ProgressBar bar("measure", true);
  NIBBLE_TRY(divergence, gate::measure_divergence(cx, open.model->weights, result.weights, holdout, bar.callback()));
  return std::optional<gate::Divergence>(divergence);
}

Result<quantize::CalibratedReport> quantize_by_data(Context& cx, const QuantizeFlags& flags,
                                                    quantize::PartialFolder& folder, const OpenModel& open,
                                                    const Conversations& chats) {
  std::deque<ProgressBar> bars;
  quantize::CalibratedOptions options;
  options.quantize = flags.options;
  options.budget = flags.budget;
  options.sensitivity = flags.sensitivity == "gradient" ? quantize::Sensitivity::gradient : quantize::Sensitivity::kl;
  options.progress = [&](std::string_view stage) {
    return bars.emplace_back(std::string(stage), stage == "write").callback();
  };
  return quantize::quantize_with_data(cx, flags.dir, folder, open.model->weights, chats.calib, options);
}

Result<QuantizeResult> make(QuantizeFlags& flags, ThreadPool& pool, quantize::PartialFolder& folder) {
  const bool by_data = quantize::needs_data(flags.options.recipe, flags.budget);
  QuantizeResult result;
  Context cx(pool, Numeric::exact);
  cx.cancel = flags.options.cancel;
  OpenModel open;
  Conversations chats;
  if (by_data || !flags.calib.empty() || !flags.holdout.empty()) {
    checkpoint::LoadOptions load;  // the values are looked at where they are quantized
    load.check_values = false;
    NIBBLE_TRY(opened, open_model(flags.dir, flags.adapter, {}, load));
    open = std::move(opened);
    NIBBLE_TRY(read, read_conversations(flags, open));
    chats = std::move(read);
  }
  if (by_data) {
    NIBBLE_TRY(made, quantize_by_data(cx, flags, folder, open, chats));
    flags.options.formats = made.formats;
    result.made = std::move(made);
  } else {
    ProgressBar bar("quantize", true);
    flags.options.progress = bar.callback();
    NIBBLE_TRY(made, quantize::quantize_folder(flags.dir, folder, flags.options, pool));
    result.made.seconds = made.seconds;
    result.made.report = std::move(made);
  }
  NIBBLE_TRY(job, quantize::plan_folder(flags.dir, flags.options));
  result.job = std::move(job);
  NIBBLE_TRY(divergence, measure(cx, folder.path(), open, chats.holdout));
  result.divergence = divergence;
  return result;
}

Result<int> run(QuantizeFlags flags) {
  if (flags.recipe == "list") {
    fmt::print("{}", quantize::recipe_list());
    return 0;
  }
  NIBBLE_RETURN_IF_ERROR(complete(flags));
  flags.options.cancel = interrupt_token();
  ThreadPool pool(flags.threads);
  if (!flags.adapter.empty()) {
    NIBBLE_TRY(adapter, checkpoint::Adapter::open(flags.adapter));
    NIBBLE_TRY(merged, checkpoint::merged_tensors(pool, std::make_shared<const checkpoint::Adapter>(std::move(adapter)),
                                                  flags.dir));
    flags.options.replace = std::move(merged);
  }
  {
    NIBBLE_TRY(job, quantize::plan_folder(flags.dir, flags.options));
    NIBBLE_RETURN_IF_ERROR(quantize::check_target(job.plan, flags.options.layout, flags.target));
    if (flags.plan) {
      flags.json ? print_json(plan_json(job.plan)) : print_plan(job.plan);
      return 0;
    }
  }
  NIBBLE_TRY(more, other_inputs(flags));
  NIBBLE_TRY(key, quantize::job_key(flags.dir, flags.options, more));
  NIBBLE_TRY(folder, quantize::PartialFolder::open(flags.output, key));
  if (folder.resumed()) spdlog::info("{}: goes on with what an earlier run left", flags.output.string());
  NIBBLE_TRY(result, make(flags, pool, folder));
  Json json = report_json(result, flags);
  json["calibration_hash"] = nullptr;
  if (!flags.calib.empty()) {
    NIBBLE_TRY(text, read_file(flags.calib));
    json["calibration_hash"] = sha256_of(text);
  }
  NIBBLE_RETURN_IF_ERROR(write_file(folder.path() / "quantize.json", json.dump(1) + "\n"));
  NIBBLE_RETURN_IF_ERROR(write_file(folder.path() / "report.html", report_html(json)));
  NIBBLE_RETURN_IF_ERROR(folder.commit());
  result.bytes_per_second_here = gate::probe_read_bandwidth(pool) * 1e9;
  json["roofline_tok_s"]["here"] = result.bytes_per_second_here / json["bytes_per_token"].get<double>();
  json["output"] = flags.output.string();
  json["seconds"] = result.made.seconds;
  flags.json ? print_json(json) : print_report(result, flags);
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command =
      app.add_subcommand("quantize", "BF16 -> NVFP4 and FP8, in the layouts that vLLM, SGLang and TensorRT-LLM load");
  add_quantize_flags(*command, *flags);
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

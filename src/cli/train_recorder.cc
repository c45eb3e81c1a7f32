#include "cli/train_recorder.h"

#include "base/machine.h"
#include "cli/command.h"

namespace nibble::cli {
namespace {

std::string percent(double share) {
  return fmt::format("{:.2f} %", 100 * share);
}

}  // namespace

train::Observer TrainRecorder::observer() {
  train::Observer o;
  o.step = [this](const train::StepResult& r) { return step(r); };
  o.eval = [this](const train::EvalResult& r) { return eval(r); };
  o.resumed = [this](int64_t at) { return open(at); };
  return o;
}

Status TrainRecorder::open(int64_t resume_step) {
  if (log_) return {};
  NIBBLE_TRY(log, train::MetricsLog::open(flags_.output, settings_, resume_step));
  log_.emplace(std::move(log));
  return {};
}

Status TrainRecorder::step(const train::StepResult& r) {
  NIBBLE_RETURN_IF_ERROR(open(0));
  last_step_ = r;
  train::StepRecord record;
  record.step = r.step;
  record.loss = r.losses.loss;
  if (r.losses.ce_rows > 0) record.ce = r.losses.mean_ce();
  if (r.losses.kl_rows > 0) record.kl = r.losses.mean_kl();
  record.lr = r.lr;
  record.grad_norm = r.gradient_norm;
  record.clip = r.clip;
  record.tokens = r.losses.tokens;
  record.loss_tokens = r.losses.rows();
  record.tok_s = static_cast<double>(r.losses.tokens) / r.seconds;
  record.memory_bytes = static_cast<int64_t>(peak_memory_bytes());
  record.seconds = r.seconds;
  record.skipped = r.skipped ? 1 : 0;
  NIBBLE_RETURN_IF_ERROR(log_->add(record));
  if (r.flips) NIBBLE_RETURN_IF_ERROR(add_flips(r.step, *r.flips));
  const double trained = 100.0 * static_cast<double>(record.loss_tokens) / static_cast<double>(record.tokens);
  std::string line = fmt::format("loss {:.4f}  lr {:.1e}  norm {:.2f}  {:.0f} tok/s  {:.0f} % of tokens trained",
                                 record.loss, r.lr, r.gradient_norm, record.tok_s, trained);
  if (flips_) line += fmt::format("  {:.2f} % codes flipped", 100 * flips_->share());
  nibble::report(progress_, static_cast<uint64_t>(r.step), static_cast<uint64_t>(r.steps), line);
  return {};
}

Status TrainRecorder::eval(const train::EvalResult& r) {
  NIBBLE_RETURN_IF_ERROR(open(0));
  if (r.step == 0) first_eval_ = r;
  last_eval_ = r;
  if (r.flips) NIBBLE_RETURN_IF_ERROR(add_flips(r.step, *r.flips));
  if (r.losses.tokens == 0) return {};
  train::EvalRecord record;
  record.step = r.step;
  if (r.losses.ce_rows > 0) record.ce = r.losses.mean_ce();
  if (r.losses.kl_rows > 0) record.kl = r.losses.mean_kl();
  if (r.losses.kl_rows > 0) record.top1 = r.losses.top1();
  return log_->add(record);
}

Status TrainRecorder::add_flips(int64_t step, const train::Flips& f) {
  flips_ = f;
  const auto share = [](int64_t part, int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); };
  train::FlipRecord record;
  record.step = step;
  record.flip = share(f.flipped, f.weights);
  record.new_flip = share(f.newly_flipped, f.weights);
  record.scale_flip = share(f.scales_flipped, f.blocks);
  record.clipped = share(f.clipped, f.blocks);
  return log_->add(record);
}

train::ReportRows results_of(const TrainFlags& flags, const train::TrainSummary& summary,
                             const TrainRecorder& recorder) {
  train::ReportRows rows;
  const train::Losses &first = recorder.first_eval().losses, &last = recorder.last_eval().losses;
  if (last.kl_rows > 0) {
    rows.emplace_back("validation KL", fmt::format("{:.5f} -> {:.5f}", first.mean_kl(), last.mean_kl()));
    rows.emplace_back("validation top-1", percent(first.top1()) + " -> " + percent(last.top1()));
  }
  if (last.ce_rows > 0) {
    rows.emplace_back("validation CE", fmt::format("{:.4f} -> {:.4f}", first.mean_ce(), last.mean_ce()));
  }
  if (recorder.last_eval().flips) {
    rows.emplace_back("codes flipped", percent(recorder.last_eval().flips->share()) + " of PTQ's");
  }
  if (summary.best_step >= 0) rows.emplace_back("best step", std::to_string(summary.best_step));
  rows.emplace_back("speed", fmt::format("{:.0f} tokens/s", static_cast<double>(summary.tokens) / summary.seconds));
  rows.emplace_back("machine", machine_name());
  rows.emplace_back("checkpoint", (flags.output / "last").string());
  return rows;
}

Status write_report(const TrainFlags& flags, const Json& settings, const train::ReportRows& results) {
  train::Report report;
  report.title = fmt::format("nibble train --mode {}: {}", flags.mode, folder_name(flags.dir));
  for (const auto& [key, value] : settings.items()) report.settings.emplace_back(key, value.dump());
  report.results = results;
  NIBBLE_TRY(metrics, train::read_metrics(flags.output));
  report.metrics = std::move(metrics);
  return write_file(flags.output / "report.html", train::to_html(report));
}

Json summary_json(const TrainFlags& flags, const train::TrainSummary& summary, const TrainRecorder& recorder) {
  const train::Losses &first = recorder.first_eval().losses, &last = recorder.last_eval().losses;
  Json json = {{"output", flags.output.string()},
               {"steps", summary.steps},
               {"interrupted", summary.interrupted},
               {"tokens", summary.tokens},
               {"loss_rows", summary.rows},
               {"seconds", summary.seconds},
               {"tokens_per_second", static_cast<double>(summary.tokens) / summary.seconds},
               {"loss", recorder.last_step().losses.loss},
               {"best_step", summary.best_step}};
  if (last.tokens > 0) {
    json["validation"] = {{"kl_before", first.mean_kl()}, {"kl", last.mean_kl()},         {"top1_before", first.top1()},
                          {"top1", last.top1()},          {"ce_before", first.mean_ce()}, {"ce", last.mean_ce()}};
  }
  if (recorder.last_eval().flips) json["flips"] = recorder.last_eval().flips->share();
  return json;
}

}  // namespace nibble::cli

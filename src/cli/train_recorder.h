// What a training run tells: the terminal and the metrics along the way, a report at the end.
#pragma once

#include "cli/terminal.h"
#include "cli/train_flags.h"
#include "train/metrics.h"
#include "train/report.h"

namespace nibble::cli {

/// Keeps the metrics and draws the progress. `flags` must outlive it. Not thread-safe.
class TrainRecorder {
 public:
  TrainRecorder(const TrainFlags& flags, Json settings)
      : flags_(flags), settings_(std::move(settings)), bar_("train"), progress_(bar_.callback()) {}

  /// Valid as long as the recorder.
  train::Observer observer();
  const train::EvalResult& first_eval() const { return first_eval_; }
  const train::EvalResult& last_eval() const { return last_eval_; }
  const train::StepResult& last_step() const { return last_step_; }

 private:
  Status open(int64_t resume_step);
  Status step(const train::StepResult& r);
  Status eval(const train::EvalResult& r);
  Status add_flips(int64_t step, const train::Flips& f);

  const TrainFlags& flags_;
  Json settings_;
  std::optional<train::MetricsLog> log_;
  std::optional<train::Flips> flips_;
  train::EvalResult first_eval_, last_eval_;
  train::StepResult last_step_;
  ProgressBar bar_;
  Progress progress_;
};

/// What came out, as a person reads it.
train::ReportRows results_of(const TrainFlags& flags, const train::TrainSummary& summary,
                             const TrainRecorder& recorder);
/// The same for programs.
Json summary_json(const TrainFlags& flags, const train::TrainSummary& summary, const TrainRecorder& recorder);
/// OUT/report.html.
Status write_report(const TrainFlags& flags, const Json& settings, const train::ReportRows& results);

}  // namespace nibble::cli

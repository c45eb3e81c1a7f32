// What a run records: one row per optimizer step, per evaluation and per look at the flipped codes, written twice.
//   metrics.jsonl   one object a line, {"type": "step" | "eval" | "flips", …}: to watch with tail -f
//   metrics.db      SQLite, to query:
//     runs  (id, started, resume_step, settings)   one row per start of the process; settings is JSON
//     steps (step PRIMARY KEY, …)                  columns = members of StepRecord
//     evals (step PRIMARY KEY, …)                  columns = members of EvalRecord
//     flips (step, tensor, …)                      columns = members of FlipRecord; tensor "" is all of them together
// What was not measured is NaN here, null in JSON, NULL in SQL. Every record is on its way to the disk before its call
// returns, in the JSONL by one write and in the database by one transaction (write-ahead log), so a kill leaves both
// readable. Not thread-safe.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/json.h"
#include "io/sqlite.h"

namespace nibble::train {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

struct StepRecord {
  int64_t step = 0;  // 1, 2, …: the number of updates after it
  double loss = kNotMeasured, ce = kNotMeasured, kl = kNotMeasured;
  double lr = kNotMeasured, grad_norm = kNotMeasured, clip = kNotMeasured;  // clip: the factor on the gradient
  int64_t tokens = 0, loss_tokens = 0;                                      // real ones, without padding
  double tok_s = kNotMeasured;
  double nominal_mfu = kNotMeasured, executed_mfu = kNotMeasured;  // shares of the peak
  int64_t memory_bytes = 0;                                        // peak so far
  double seconds = kNotMeasured, forward_s = kNotMeasured, backward_s = kNotMeasured, optimizer_s = kNotMeasured;
  int64_t skipped = 0;  // 1: the update was skipped, loss or gradient was not finite
};

struct EvalRecord {
  int64_t step = 0;
  double ce = kNotMeasured, kl = kNotMeasured, top1 = kNotMeasured;  // of the validation set
  double gate_pass = kNotMeasured;                                   // share of behaviour cases that pass
  double output_tokens = kNotMeasured;                               // mean
  double length_capped = kNotMeasured;                               // share of replies that hit the cap
  double seconds = kNotMeasured;
};

/// Shares, against the quantized start of the run.
struct FlipRecord {
  int64_t step = 0;
  std::string tensor = {};  // "" = all tensors together
  double flip = kNotMeasured, scale_flip = kNotMeasured, new_flip = kNotMeasured;
  double oscillation = kNotMeasured, clipped = kNotMeasured, moved = kNotMeasured;
};

struct RunMetrics {
  std::vector<StepRecord> steps;  // by step
  std::vector<EvalRecord> evals;
  std::vector<FlipRecord> flips;  // only those of all tensors together
};

class MetricsLog {
 public:
  /// Opens or creates both files in `folder`. Whatever they hold of steps beyond `resume_step` is removed first, and a
  /// last line that a kill cut off as well, so a resumed run is recorded once; 0 starts over.
  static Result<MetricsLog> open(const Path& folder, const Json& settings, int64_t resume_step = 0);

  Status add(const StepRecord& record);
  Status add(const EvalRecord& record);
  Status add(const FlipRecord& record);

 private:
  MetricsLog(AppendFile lines, Database database) : lines_(std::move(lines)), database_(std::move(database)) {}

  AppendFile lines_;
  Database database_;
  std::optional<SqlStatement> step_, eval_, flip_;  // after the database: they end first
};

/// Everything the database of a run holds; fine while the run is still writing.
Result<RunMetrics> read_metrics(const Path& folder);

}  // namespace nibble::train

// A pass op by op: what each kind takes, and what is left of the pass as it runs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/json.h"
#include "model/batch_runner.h"

namespace nibble::gate {

struct OpRow {
  std::string op;
  int64_t count = 0;            // in a pass
  double us = 0;                // of all of them: the median of the passes, less what their marks take
  double bytes = 0, flops = 0;  // that they must move and compute; one of both is counted
  double gb_s() const { return us > 0 ? bytes / us * 1e-3 : 0; }
  double tflop_s() const { return us > 0 ? flops / us * 1e-6 : 0; }
};

struct OpTable {
  std::vector<OpRow> rows{};  // in the order of model::PassOp, those that occur
  double whole_us = 0;        // of the pass as it runs, without marks
  double mark_us = 0;         // of a mark alone

  bool empty() const { return rows.empty(); }
  OpRow sum() const;
  /// The rest of the pass: below 0 where ops overlap that marks keep apart, above where the device waits for work.
  double rest_us() const { return whole_us - sum().us; }
  /// With the share of what a probe moved where bytes are counted.
  Json json(double probe_gb_s) const;
};

/// Room for the marks of any pass that the bench knows.
inline constexpr size_t kMostMarks = size_t{1} << 18;

/// A row for each kind of op in `pass`, which is one read() or step() of the runner, run `repeats` times with marks
/// after one to warm up. `cost` fills bytes or flops of a row. Of `whole_us` see OpTable.
Result<OpTable> measure_ops(Context& cx, model::BatchRunner& runner, int repeats, double whole_us,
                            const std::function<Status()>& pass,
                            const std::function<void(model::PassOp, OpRow&)>& cost);

/// measure_ops() of reading `ids` into slot 0.
Result<OpTable> prompt_ops(Context& cx, model::BatchRunner& runner, const model::Weights& weights,
                           std::span<const int32_t> ids, int repeats, double whole_us);

/// measure_ops() of steps of sequences that stand at `position`, in slots from 0; their rules are those of `speakers`.
Result<OpTable> step_ops(Context& cx, model::BatchRunner& runner, const model::Weights& weights,
                         std::vector<model::Speaker> speakers, int64_t position, double whole_us);

}  // namespace nibble::gate

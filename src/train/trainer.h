// The training loop: batches, gradients, clipping, update, validation, saving. It writes
//
//   OUT/checkpoints/step-N/   what --resume continues from (run_state.h)
//   OUT/adapter/              the newest adapter alone, in PEFT's layout, where one is trained
//   OUT/best, OUT/last        checkpoints to serve: the lowest validation loss, and the newest (export.h)
// and tells an observer about every step and evaluation.
#pragma once

#include <functional>

#include "train/dataset.h"
#include "train/export.h"
#include "train/schedule.h"
#include "train/step.h"

namespace nibble::train {

struct TrainerOptions {
  Schedule schedule;  // `steps` is filled in from epochs unless it is above 0
  int64_t epochs = 1;
  BatchOptions batch;
  int64_t accumulate = 1;  // micro-batches per optimizer step; an epoch's last step may have fewer
  LossOptions loss;
  ops::AdamW adamw;          // lr, step and clip are the loop's
  double clip = 1;           // largest gradient norm; 0 = any
  int64_t eval_every = 0;    // steps; 0: at the end of every epoch
  int64_t save_every = 0;    // steps; 0: with every evaluation
  int64_t flips_every = 10;  // steps between counts of changed codes; 0: with evaluations only
  int keep = 2;              // states that stay
  bool resume = false;
  std::string settings;  // hash of what else shapes the run: model, data, flags; a resumed run must have the same
};

struct StepResult {
  int64_t step = 0, steps = 0;  // 1-based
  double epoch = 0;             // epochs begun or done, as a fraction
  Losses losses;
  double lr = 0, gradient_norm = 0, clip = 1;
  double seconds = 0;
  std::optional<Flips> flips;
  bool skipped = false;  // a loss or gradient was not finite: the step changed nothing
};

struct EvalResult {
  int64_t step = 0;
  Losses losses;
  std::optional<Flips> flips;
  bool best = false;
};

struct Observer {
  std::function<Status(const StepResult&)> step;
  std::function<Status(const EvalResult&)> eval;
  /// Step `step` is where a resumed run goes on: what was told about later ones did not happen.
  std::function<Status(int64_t step)> resumed;
};

struct TrainSummary {
  int64_t steps = 0;             // done in all
  int64_t tokens = 0, rows = 0;  // seen by this process
  double seconds = 0;
  int64_t best_step = -1;
  double best_loss = 0;
  bool interrupted = false;
};

/// Optimizer steps that these options make of the data.
int64_t count_steps(const std::vector<Sample>& samples, const TrainerOptions& options);

/// `valid` may be empty. A set cx.cancel ends the run after the step under way, with everything saved. Errors: those of
/// the observer, of writing, and `invalid_argument` for three steps in a row that are not finite, naming a tensor.
Result<TrainSummary> train(Context& cx, Student& student, Teacher* teacher, const std::vector<Sample>& samples,
                           const std::vector<Sample>& valid, const TrainerOptions& options, const Exporter& exporter,
                           const Path& output, const Observer& observer);

/// The losses over all samples, without a gradient.
Result<Losses> evaluate(Context& cx, LossPass& pass, const std::vector<Sample>& samples, const BatchOptions& options);

}  // namespace nibble::train

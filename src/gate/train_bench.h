// Train bench: how fast a student trains here, and what share of the machine's matrix-product rate that is.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "io/json.h"
#include "train/step.h"

namespace nibble::gate {

struct TrainBenchOptions {
  int64_t sequences = 8, length = 256;  // a step's batch: pseudo-random ids, every token but the last ones is scored
  int repeats = 3;                      // timed steps, after one that warms up; the median counts
  train::Objective objective = train::Objective::ce;
  train::LossOptions loss = {.keep_traces = true};
};

struct SgemmRate {
  std::string name;
  double gflop_s = 0;
};

struct TrainBenchResult {
  int64_t tokens = 0;    // of a step
  double gemm_flop = 0;  // of a step, see train_gemm_flop
  double step_s = 0;
  std::vector<SgemmRate> sgemm;  // 2048 x 2048 x 2048 on all threads of the pool, measured between the steps

  double tok_s() const { return static_cast<double>(tokens) / step_s; }
  double gflop_s() const { return gemm_flop / step_s * 1e-9; }
  const SgemmRate& fastest_sgemm() const;
  double share() const { return gflop_s() / fastest_sgemm().gflop_s; }

  Json json() const;
};

/// Floating-point operations of the matrix products with weights that one step executes over T tokens, R of them
/// scored:
///   sum over the linears of the blocks   2 T out in (1 forward + 1 if recomputed + 1 input + 1 if trained)
///   head                                 2 R V H    (1 forward + 1 input + 1 if trained)
///   teacher                              2 T out in of its blocks, 2 R V H' of its head
/// Products inside attention and the delta rule are not counted, nor is anything else.
double train_gemm_flop(train::Student& student, const model::Weights* teacher, int64_t tokens, int64_t rows,
                       bool recompute);

/// Times whole optimizer steps: gradients cleared, forward, loss, backward, norm and clipping, AdamW, and the refresh
/// of what the forward reads. The student is trained by them. `teacher` may be null where the objective needs none.
/// `invalid_argument` when a sequence is longer than the model was trained for.
Result<TrainBenchResult> train_bench(Context& cx, train::Student& student, const model::Weights* teacher,
                                     const TrainBenchOptions& options, const Progress& progress);

}  // namespace nibble::gate

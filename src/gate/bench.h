// Bench: how fast a model reads and speaks here, and what share of the machine's memory bandwidth that is.
#pragma once

#include <cstdint>
#include <vector>

#include "base/progress.h"
#include "gate/op_table.h"
#include "io/json.h"
#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::gate {

struct BenchOptions {
  std::vector<int64_t> depths = {128, 512, 2048};  // prompt tokens before the tokens that are timed
  int64_t decode_tokens = 32;                      // spoken after each prompt, at that real depth
  int repeats = 3;                                 // the median counts
  bool profile = false;                            // every depth with the ops of its prompt and of a step
};

struct BenchPoint {
  int64_t depth = 0;
  double ttft_ms = 0;        // prompt read and first token chosen
  double prefill_tok_s = 0;  // depth / ttft
  double decode_tok_s = 0;
  double decode_gb_s = 0;            // bytes that a step must move over the time it took
  double decode_share = 0;           // of the probe
  OpTable prompt_ops{}, step_ops{};  // with profile
};

struct BenchReport {
  std::string machine, numeric;
  int threads = 0;
  double probe_gb_s = 0;  // what the same threads read from memory in the same run
  uint64_t weight_bytes_per_token = 0;
  std::vector<BenchPoint> points;

  Json json() const;
};

/// Pseudo-random ids, the same for every bench.
std::vector<int32_t> random_ids(int64_t n, int64_t vocab);

/// GB/s that all threads of the pool together read from a buffer far larger than the caches; the best of five passes.
double probe_read_bandwidth(ThreadPool& pool);

/// Prompts are pseudo-random ids. `invalid_argument` when a depth exceeds what the model was trained for.
Result<BenchReport> bench(Context& cx, const model::Weights& weights, const BenchOptions& options,
                          const Progress& progress);

}  // namespace nibble::gate

// The engine that runs a model in this process: one thread, a few sequences at a time, first come first served.
#pragma once

#include <memory>

#include "checkpoint/load.h"
#include "engine/engine.h"
#include "model/batch_runner.h"
#include "tensor/context.h"
#include "text/tokenizer.h"

namespace nibble::engine {

struct EngineOptions {
  int64_t context = 0;  // tokens of prompt and reply; 0 = the smaller of 8192 and what the model was trained for
  Numeric numeric = Numeric::bf16_act;
  Device device = {};
  int64_t slots = 1;          // sequences that speak at once, at most 64; each has its own state
  int threads = 0;            // 0 = one per core
  int64_t max_queue = 64;     // requests that may wait
  uint64_t memory_limit = 0;  // bytes that the memory plan must stay within; 0: what a GPU has free
};

/// `invalid_argument` when the context exceeds what the model was trained for, or for too many slots.
Status check_options(const model::Config& config, const EngineOptions& options);
/// The context that the options ask for.
int64_t context_of(const model::Config& config, const EngineOptions& options);
model::RunnerOptions runner_options(const EngineOptions& options, int64_t context);

/// Reserves all memory now, on a GPU that of the weights, too, as plan_memory (memory_plan.h) says, whose errors are
/// its own; `unsupported` for numerics or formats that a GPU does not have.
Result<std::shared_ptr<Engine>> start_engine(std::shared_ptr<const checkpoint::LoadedModel> model,
                                             std::shared_ptr<const text::Tokenizer> tokenizer,
                                             const EngineOptions& options);

}  // namespace nibble::engine

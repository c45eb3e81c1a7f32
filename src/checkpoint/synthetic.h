// Synthetic models: random weights of an exact shape, to measure speed and memory without downloading anything. They
// say nothing sensible.
#pragma once

#include "base/cancel.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "checkpoint/load.h"
#include "model/config.h"

namespace nibble::checkpoint {

struct SyntheticOptions {
  uint64_t seed = 1;
  Progress progress;  // in bytes
  CancelToken cancel;
  bool quantized_head = false;  // nvfp4: lm_head, too
  bool shapes_only = false;     // in memory: tensors have shapes and formats but no numbers, and must not be read
  /// Of a written file; tests make it small.
  uint64_t shard_bytes = 5'000'000'000;
};

/// A model in memory. nvfp4 quantizes what the default recipe does: all Linears of the blocks but in_proj_a and
/// in_proj_b; the rest is bf16. f32 and bf16 hold the same values. `out_of_memory` when the machine has less memory
/// than the weights need.
Result<LoadedModel> synthetic_model(const model::Config& config, ops::WeightFormat format, ThreadPool& pool,
                                    const SyntheticOptions& options = {});

/// The bf16 model of the same seed as a complete Hugging Face folder, with draft-head tensors if the config has them
/// and a tokenizer of the 256 bytes and the 33 added tokens of the released vocabulary. Memory use stays below 64 MB
/// at any size. The folder appears when everything is written; until then, and after an error, there is none.
Status write_synthetic_checkpoint(const Path& folder, const model::Config& config, ThreadPool& pool,
                                  const SyntheticOptions& options = {});

}  // namespace nibble::checkpoint

// load_checkpoint: a Hugging Face folder, or a GGUF file (gguf_load.h), becomes a model that can compute.
//
// Read from the folder: config.json, the safetensors (io/safetensors.h says which), generation_config.json,
// hf_quant_config.json, tokenizer_config.json and the added tokens of tokenizer.json. Config form and tensor prefix
// may disagree. mtp.* and model.visual.* are left in the files.
//
// Matrices stay views into the mapped files (F16 ones are converted to f32, exactly), so loading costs no memory for
// them; vectors become f32. Every text tensor must be there with its shape, and a text tensor that the model does not
// know is refused, because leaving it out would compute something else.
#pragma once

#include <string>

#include "base/cancel.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "checkpoint/generation.h"
#include "checkpoint/quantization.h"
#include "checkpoint/summary.h"
#include "model/weights.h"

namespace nibble::checkpoint {

struct LoadOptions {
  /// Look at every matrix once: NaN and infinities in weights and bad scale bytes are `corrupt`. It reads the files
  /// once, which the first forward would have to do too.
  bool check_values = true;
  /// F16 matrices become f32 in memory. Without it they have a shape and no data: for check_checkpoint.
  bool widen_f16 = true;
  ThreadPool* pool = nullptr;  // shares that work; not owned
  Progress progress;           // in bytes of matrices
  CancelToken cancel;
};

struct LoadedModel {
  model::Weights weights;
  Generation generation;
  Quantization quantization;
  FormatSummary format;
  std::string fingerprint;  // 8 hex digits of SHA-256 over config.json and every tensor header
  std::string adapter;      // the name of one that was merged into the weights, or empty
};

/// Errors name the tensor and the file, with a hint; nothing is left behind. `not_found` when the folder, its
/// config.json or its weights are not there.
Result<LoadedModel> load_checkpoint(const Path& path, const LoadOptions& options = {});

/// The checks of load_checkpoint on a folder's files, names, dtypes and shapes, without looking at a weight or keeping
/// one: for what streams the tensors itself.
Status check_checkpoint(const Path& folder);

}  // namespace nibble::checkpoint

// The same model in another layout: ModelOpt, compressed-tensors, or full precision in BF16.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/thread_pool.h"

namespace nibble::checkpoint {

enum class TargetLayout : uint8_t { modelopt, compressed_tensors, bf16 };

/// "modelopt", "compressed-tensors", "bf16".
std::optional<TargetLayout> target_layout_named(std::string_view word);

struct ConvertOptions {
  ThreadPool* pool = nullptr;  // not owned; decodes weights for bf16
  Progress progress;           // in bytes of the source
  CancelToken cancel;
};

struct Converted {
  std::string algo;                // the new layout's word for the whole; empty for bf16
  int64_t linears = 0;             // quantized ones of the source
  uint64_t bytes = 0;              // of tensors written
  std::vector<std::string> notes;  // what the new layout does not hold
};

/// Writes the quantized checkpoint `source` to the new or empty folder `output`.
///   between the quantized layouts  codes and block scales stay, byte for byte. Tensor and input scales are kept as
///   they
///                                  are or as the reciprocal, rounded to F32: that may move a factor by its last bit.
///                                  Both config files come from what the tensors are, in our exporter's form.
///   bf16                           every quantized weight is decoded, times pre_quant_scale and plus the low-rank
///                                  branch where there are such, and rounded to BF16; inputs are no longer rounded.
/// Tensors that are not quantized and other files are copied. One linear at a time is in memory; of ModelOpt's AWQ
/// those with pre_quant_scale all at once. The output appears complete or not at all, after it was opened once.
/// `invalid_argument` for an unquantized source; `unsupported` for forms that the new layout has no words for: low-rank
/// branches in compressed-tensors, pre_quant_scale in both, FP8 by channel with static inputs in ModelOpt's; the errors
/// of load_checkpoint for a source that is not sound.
Result<Converted> convert_layout(const Path& source, const Path& output, TargetLayout target,
                                 const ConvertOptions& options = {});

}  // namespace nibble::checkpoint

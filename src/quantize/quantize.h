// From a BF16 (or F32, F16) checkpoint folder to an NVFP4 folder in the ModelOpt layout, one tensor at a time.
//
// Two passes over the mapped source: the first finds the largest magnitude of every fused group, the second quantizes
// and writes. Pages are given back as soon as they were used, so memory holds one linear and its codes, whatever the
// size of the model (about 0.3 GB for 27B). Names, order and bytes of everything that is not quantized stay, and files
// that hold no weights are copied verbatim. The output folder appears complete or not at all.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "io/json.h"
#include "io/safetensors_writer.h"
#include "ops/linear/linear.h"
#include "ops/quant/nvfp4.h"
#include "quantize/plan.h"

namespace nibble::quantize {

struct QuantizeOptions {
  std::string strategy = "max";
  std::vector<std::string> exclude;  // see PlanOptions

  /// Largest magnitude that the input of each linear had during calibration, by module name. Empty: activations stay
  /// as they are (W4A16). Otherwise every quantized linear needs an entry above 0; others are ignored. The members of a
  /// fused group get the largest entry among them.
  std::map<std::string, float> input_amax;

  /// False: every linear has its own tensor scale. Servers replace unequal scales of a fused group by their maximum
  /// without requantizing, so such an export is for comparison only, and its consistency is not checked.
  bool tie_groups = true;

  /// False: nothing becomes NVFP4. The result is the source with the tensors of `replace`.
  bool quantize = true;
  /// What stands in for a tensor of the source: values of its dtype and shape, valid until the next call; empty where
  /// the source's own stand. For weights that were trained or merged in memory.
  std::function<Result<Tensor>(const TensorInfo&)> replace;
  /// Scales that were chosen already, by module: the tensor and block scales of this Linear are used. nullptr: the
  /// strategy chooses.
  std::function<const ops::Linear*(const std::string&)> scales;

  uint64_t shard_bytes = ShardedSafetensorsWriter::kShardBytes;
  Progress progress;   // in bytes of source read
  CancelToken cancel;  // looked at between tensors and every 64 MiB of copying
};

struct QuantizedTensor {
  std::string module;
  float tensor_scale = 0;
  ops::Nvfp4Stats stats;
};

struct QuantizeReport {
  uint64_t source_bytes = 0, bytes = 0;  // of tensors
  uint64_t bytes_per_token = 0;
  std::vector<QuantizedTensor> quantized;  // in the order of the source
  double seconds = 0;

  /// Squared error over squared weights, all quantized tensors together.
  double relative_error() const;
};

/// An opened source and what would be done with it. The plan's tensors point into `weights`.
struct Job {
  SafetensorsFolder weights;
  Json config;  // config.json
  Plan plan;
};

/// The static input scale of every group of the plan: that of the largest entry among its members. Zeros without
/// calibration. `invalid_argument` for a quantized module without an entry above 0.
Result<std::vector<float>> group_input_scales(const Plan& plan, const std::map<std::string, float>& input_amax);

/// Reads config and headers and makes the plan; touches no weight. `invalid_argument` for a checkpoint that is
/// quantized already.
Result<Job> plan_folder(const Path& source, const QuantizeOptions& options);

/// Errors, all of which leave nothing behind: those of plan_folder; `invalid_argument` for an unknown strategy, an
/// output that is not new or empty, an input_amax that is missing or not above 0; `corrupt` for a weight that is NaN or
/// infinite ("weight not finite: NAME[row,col]") and for a row that would vanish; `cancelled`; `io`.
Result<QuantizeReport> quantize_folder(const Path& source, const Path& output, const QuantizeOptions& options,
                                       ThreadPool& pool);

}  // namespace nibble::quantize

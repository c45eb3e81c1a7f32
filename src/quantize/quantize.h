// From a BF16 (or F32, F16) checkpoint folder to one with NVFP4 and FP8 linears, one tensor at a time.
//
// The mapped source is read twice, group by group: once for the largest magnitude of a fused group, once to quantize
// it. Pages are given back as soon as they were used, so memory holds one linear and its codes, whatever the size of
// the model (about 0.3 GB for 27B). Names, order and bytes of everything that is not quantized stay, and files that
// hold no weights are copied verbatim. The output folder appears complete or not at all.
#pragma once

#include <functional>
#include <map>
#include <optional>
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
#include "quantize/partial_folder.h"
#include "quantize/plan.h"
#include "quantize/recipe.h"

namespace nibble::quantize {

using checkpoint::Layout;

/// A linear that was quantized already, for instance against statistics of its inputs. Its format, low-rank branch
/// included, is the one that the plan has for the module. An input_scale above 0 takes the place of the calibrated one.
struct SolvedLinear {
  ops::Linear linear;
  ops::Nvfp4Stats stats;  // of FP8: energy and error
};

struct QuantizeOptions {
  /// Rules and scales hold here; Scales::local_hessian, transforms and roundings need data and are done by whoever sets
  /// `solved`. What is not solved gets the best of the data-free scales, rounded to nearest.
  Recipe recipe = uniform_recipe(Scales::max, Inputs::a16);
  std::vector<std::string> exclude;             // see PlanOptions
  std::map<std::string, FormatChoice> formats;  // see PlanOptions
  bool untie = false;                           // or recipe.untie
  Layout layout = Layout::modelopt;

  /// Largest magnitude that the input of each linear had during calibration, by module name. Linears with a8 or a4
  /// inputs need an entry above 0; others are ignored. The members of a fused group get the largest entry among them.
  std::map<std::string, float> input_amax;

  /// False: every linear has its own tensor scale. Servers replace unequal scales of a fused group by their maximum
  /// without requantizing, so such an export is for comparison only, and its consistency is not checked.
  bool tie_groups = true;

  /// False: nothing is quantized. The result is the source with the tensors of `replace`.
  bool quantize = true;
  /// What stands in for a tensor of the source: values of its dtype and shape, valid until the next call; empty where
  /// the source's own stand. For weights that were trained or merged in memory, and for folded norms.
  std::function<Result<Tensor>(const TensorInfo&)> replace;
  /// Scales that were chosen already, by module: the tensor and block scales of this Linear are used. nullptr: the
  /// recipe chooses.
  std::function<const ops::Linear*(const std::string&)> scales;
  /// Linears that are finished, by module; views valid until the next call. nullopt: it is quantized here. Not asked
  /// for linears that an earlier run has written.
  std::function<Result<std::optional<SolvedLinear>>(const std::string& module)> solved;

  uint64_t shard_bytes = kShardBytes;
  Progress progress;   // in bytes of source read
  CancelToken cancel;  // looked at between tensors and every 64 MiB of copying

  /// Small enough that an interrupted run loses little, large enough for few files.
  static constexpr uint64_t kShardBytes = 2'000'000'000;
};

struct QuantizedTensor {
  std::string module;
  Format format = Format::nvfp4;
  float tensor_scale = 0;  // the largest of fp8_channel
  ops::Nvfp4Stats stats;   // of FP8: energy and error
};

struct QuantizeReport {
  std::string algo;  // the layout's word for the whole: "W4A16_NVFP4", "MIXED_PRECISION", "nvfp4-pack-quantized", …
  uint64_t source_bytes = 0, bytes = 0;  // of tensors
  uint64_t bytes_per_token = 0;
  double effective_bits = 0, effective_bits_with_head = 0;  // of Plan
  std::vector<QuantizedTensor> quantized;                   // in the order of the source
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

/// The static input scale of every group of the plan: that of the largest entry among its members, amax / 2688 for a4
/// and amax / 448 for a8. Zeros for a16. `invalid_argument` for a module that needs an entry above 0 and has none.
Result<std::vector<float>> group_input_scales(const Plan& plan, const std::map<std::string, float>& input_amax);

/// Reads config and headers and makes the plan; touches no weight. `invalid_argument` for a checkpoint that is
/// quantized already.
Result<Job> plan_folder(const Path& source, const QuantizeOptions& options);

/// Errors, all of which leave nothing behind: those of plan_folder; `invalid_argument` for an output that is not new or
/// empty, an input_amax that is missing or not above 0, low-rank branches in a layout that has none; `corrupt` for a
/// weight that is NaN or infinite ("weight not finite: NAME[row,col]") and for a row that would vanish; `cancelled`;
/// `io`.
Result<QuantizeReport> quantize_folder(const Path& source, const Path& output, const QuantizeOptions& options,
                                       ThreadPool& pool);

/// The same into a folder that survives interruption: shards that an earlier run completed are kept, and the result is
/// the same, byte for byte, as without one. The caller commits `output`.
Result<QuantizeReport> quantize_folder(const Path& source, PartialFolder& output, const QuantizeOptions& options,
                                       ThreadPool& pool);

/// The key of a job for PartialFolder: SHA-256 over nibble's version, the files of the source (names, sizes, times of
/// change, config.json), every option here that changes bytes but the functions, and `more`, which stands for those.
Result<std::string> job_key(const Path& source, const QuantizeOptions& options, std::string_view more);

}  // namespace nibble::quantize

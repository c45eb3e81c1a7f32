// Memory plan: how many bytes a training run needs, from the model's sizes and a few choices. Pure arithmetic:
// parameters and optimizer state are exact, activations follow what the backward of each block needs and are an
// estimate.
//
// Bytes of a parameter that trains = master + moments + gradient:
//   master    f32 4 (+ 2 with a BF16 copy to compute with), split 4, bf16 2
//   moments   f32 8, bf16 4, q8 2 + 8/256
//   gradient  f32 4, bf16 2
// A parameter that does not train needs its 2 (or 4) bytes alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "ops/optim/adamw.h"

namespace nibble::train {

/// Parameters of the text model by kind, without draft head and vision tower.
struct ParameterCounts {
  int64_t mlp = 0, attention = 0, delta = 0;  // the linears that NVFP4 can hold
  int64_t small = 0;                          // norms, conv, a/b, A_log, dt_bias
  int64_t embedding = 0, head = 0;            // head 0: tied
  int64_t quantizable() const { return mlp + attention + delta; }
  int64_t total() const { return quantizable() + small + embedding + head; }
};
ParameterCounts count_parameters(const model::Config& config, bool tied);

enum class TrainedParts : uint8_t { all, blocks, linears };      // blocks: without embedding and head
enum class Recompute : uint8_t { none, mlp, all };               // what the backward computes again
enum class FakeQuantCache : uint8_t { none, packed, bf16 };      // none: no fake quantization
enum class TeacherSource : uint8_t { none, resident, sidecar };  // sidecar: hidden states in a file
constexpr const char* name(Recompute r) {
  return r == Recompute::none ? "none" : r == Recompute::mlp ? "mlp" : "all";
}

struct PlanOptions {
  TrainedParts trainable = TrainedParts::all;
  ops::MasterFormat master = ops::MasterFormat::split;
  bool bf16_copy = false;  // of an f32 master
  ops::MomentFormat moments = ops::MomentFormat::q8;
  DType gradient = DType::bf16;
  Recompute recompute = Recompute::all;
  FakeQuantCache cache = FakeQuantCache::none;
  TeacherSource teacher = TeacherSource::none;
  bool share_frozen = true;                    // a resident teacher shares the embedding and head that do not train
  int64_t tokens = 2048;                       // of a micro-batch
  DType activations = DType::bf16;             // f32 on a CPU
  int64_t head_rows = 512;                     // rows of logits at a time
  uint64_t reserve_bytes = uint64_t{1} << 30;  // libraries, work space, the data
};

struct PlanItem {
  std::string what;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlanItem> items;  // none of them 0
  uint64_t total() const;
  uint64_t state_bytes = 0;  // weights, moments and gradients among them
  /// A line an item and the total, in GB = 10^9 bytes.
  std::string text() const;
};

MemoryPlan plan_memory(const model::Config& config, bool tied, const PlanOptions& options);

/// ok, or `out_of_memory` that names both sizes; its hint names the choices that would fit, fewest and least harmful
/// first: teacher from a sidecar, recomputation, moments, gradients, fewer tokens, embedding and head frozen, a BF16
/// master.
Status fits(const model::Config& config, bool tied, const PlanOptions& options, uint64_t available_bytes);

}  // namespace nibble::train

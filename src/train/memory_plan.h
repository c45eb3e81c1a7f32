// Memory plan: how many bytes a training run needs, from the shape of the model and the options of the run, before a
// weight is looked at.
//
// What the Student and the teacher hold is exact; what one micro-batch needs follows the calls of its forward, head and
// backward, to some percent. Bytes per parameter:
//   trained      master 4 (BF16 file: two halves; F32 file: itself), gradient 4, moments 8 (f32), 4 (bf16), 2 + 8/256
//                (q8)
//   with LoRA    of every adapted linear: stored 2 or 4, base 4, gradient 4; and of its adapter: 4 + 4 + moments
//   in 4 bits    codes and block scales three times over: now, at the start, at the last count: 1.625
//   neither      the 2 or 4 of the file, mapped
// Vectors are also held in f32 for the forward.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "train/batches.h"
#include "train/student.h"

namespace nibble::train {

/// A checkpoint as far as the plan sees it.
struct PlannedModel {
  model::Config config;
  bool tied = false;
  DType dtype = DType::bf16;  // of its matrices in memory
};

/// Elements of the text model by kind, without draft head and vision tower.
struct ParameterCounts {
  int64_t quantizable = 0;  // the linears of the blocks that NVFP4 can hold
  int64_t gates = 0;        // in_proj_a, in_proj_b
  int64_t norms = 0;
  int64_t vectors = 0;              // conv, A_log, dt_bias
  int64_t embedding = 0, head = 0;  // head 0: tied
  int64_t largest = 0;              // of the quantizable linears
  int64_t in_and_out = 0;           // sum over the quantizable linears
  int64_t total() const { return quantizable + gates + norms + vectors + embedding + head; }
};
ParameterCounts count_parameters(const PlannedModel& model);

struct PlanOptions {
  StudentOptions student = {};
  bool merged_adapter = false;    // an adapter was merged into the weights first
  bool quantized_inputs = false;  // of the 4-bit linears
  BatchExtent batch = {2048, 2048, 1};
  bool keep_traces = false;
  int64_t head_chunk = 512;  // rows of logits at a time
  int threads = 1;
  std::optional<PlannedModel> teacher = {};
  bool teacher_is_source = false;  // it maps the files that the student's frozen tensors are views of
  bool teacher_is_file = false;    // its hidden states are read from a sidecar: of the model the head alone is there
};

struct PlanItem {
  std::string what;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlanItem> items;  // none of them 0
  uint64_t state_bytes = 0;     // weights, gradients and moments among them
  uint64_t work_bytes = 0;      // what a micro-batch takes from the arena, among them
  uint64_t total() const;
  /// A line an item and the total, in GB = 10^9 bytes, or in MB where the total is below ten.
  std::string text() const;
};

MemoryPlan plan_memory(const PlannedModel& model, const PlanOptions& options);

/// What a run may take of `bytes` that are free: nine tenths. The rest stays for the system and the pages of the files
/// that a run reads and writes.
uint64_t usable_memory(uint64_t bytes);

/// ok, or `out_of_memory` that names both sizes; its hint names the flags that would make it fit, fewest and least
/// harmful first.
Status fits(const PlannedModel& model, const PlanOptions& options, uint64_t usable_bytes);

}  // namespace nibble::train

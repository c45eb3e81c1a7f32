// Bench of a model on a GPU: how fast it reads and speaks, alone and for many sequences, and what share of the memory's
// bandwidth that is.
#pragma once

#include <vector>

#include "base/progress.h"
#include "gate/op_table.h"
#include "io/json.h"
#include "model/weights.h"
#include "tensor/context.h"
#include "tensor/device.h"

namespace nibble::gate {

struct DeviceBenchOptions {
  std::vector<int64_t> prompts = {128, 512, 2048, 8192, 32768};  // lengths that are read
  std::vector<int64_t> depths = {128, 2048, 16384, 65536};       // tokens before those that are spoken by one sequence
  std::vector<int64_t> batches = {1, 4, 8, 16, 64};              // sequences that speak at once
  int64_t batch_depth = 2048;                                    // and the tokens before each of theirs
  int64_t decode_tokens = 64;
  int repeats = 5;                        // the median counts
  std::vector<int64_t> sampled = {1, 8};  // sequences that sample, at batch_depth
  bool profile = false;                   // every point with its ops
};

struct PromptPoint {
  int64_t tokens = 0;
  double ms = 0;  // until the first token is chosen and known here
  double tok_s = 0;
  double tflop_s = 0;  // of the products with weights
  OpTable ops{};       // with profile
};
struct SpeechPoint {
  int64_t depth = 0, sequences = 1;
  double step_ms = 0;
  double tok_s = 0;  // of all sequences together
  double gb_s = 0;   // bytes that a step must move over the time it took
  double share = 0;  // of the probe
  int64_t nodes = 0;
  OpTable ops{};  // with profile
};
/// The same step choosing the likeliest ids and drawing them.
struct SampledPoint {
  int64_t depth = 0, sequences = 1;
  double greedy_ms = 0, step_ms = 0;
  OpTable ops{};  // of the one that draws
};

struct DeviceBenchReport {
  DeviceInfo device;
  double probe_gb_s = 0;  // a copy in the GPU's memory, bytes read and written
  uint64_t weight_bytes_per_token = 0, weight_bytes = 0, state_bytes = 0;
  std::vector<PromptPoint> prompts;
  std::vector<SpeechPoint> speech;
  std::vector<SampledPoint> sampled;

  Json json() const;
};

/// What of lengths that nobody asked for the model was trained for; those asked for stay, and are refused later.
DeviceBenchOptions fitting(DeviceBenchOptions options, const model::Config& config, bool prompts_asked,
                           bool depths_asked);

/// What the bench reserves on the GPU beside the weights.
uint64_t device_bench_bytes(const model::Config& config, const DeviceBenchOptions& options);

/// Prompts are pseudo-random ids. `weights` are those of the context's GPU. `invalid_argument` for lengths beyond what
/// the model was trained for.
Result<DeviceBenchReport> device_bench(Context& cx, const model::Weights& weights, const DeviceBenchOptions& options,
                                       const Progress& progress);

}  // namespace nibble::gate

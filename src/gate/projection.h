// Projection: how fast a model would read and speak on a machine that is not here, from the bytes and instructions of
// a step. Never a measurement, and always labelled.
//
//   bytes          weights once, and for each sequence its state read and written and its keys and values read
//   instructions   of the loops that read weights, per weight: counted in the sm_121a code (tools/sass_check --count)
//   ceiling tok/s  = sequences / max(bytes / bandwidth, instructions / those that the lanes can issue)
//   projected      = ceiling * the share of its ceiling that was reached where it was measured
//   prompt floor   = sum over linears of max(products / peak of their operands, bytes / bandwidth); prompts are read in
//                    pieces of 2048 tokens, each of which reads the weights; the head sees one token
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gate/device_bench.h"
#include "gate/machines.h"

namespace nibble::gate {

/// A measured step and the share of the bandwidth of its machine that it reached.
struct ReachedShare {
  int64_t depth, sequences;
  double share;
};

struct ProjectionOptions {
  std::vector<int64_t> prompts, depths, batches;  // as of DeviceBenchOptions; at most 64 sequences
  int64_t batch_depth = 2048;
  std::optional<double> share{};        // the same for every step
  std::vector<ReachedShare> reached{};  // else that of the nearest step: by sequences, then by depth. Not empty.
  std::string reached_source{};
};

/// 9B, all NVFP4, on an H200 (bench/results/cuda-h200.json): what is taken where nothing else is given.
std::vector<ReachedShare> default_reached();
inline constexpr std::string_view kDefaultReachedSource = "nibble on an H200, 9B NVFP4, bench/results/cuda-h200.json";

/// The shares of a report that `bench --device cuda --json` wrote. `corrupt` where it is none.
Result<std::vector<ReachedShare>> reached_shares(const Json& report);

struct ProjectedFormat {
  std::string name;  // "nvfp4", "nvfp4 x nvfp4" where inputs are rounded, …
  uint64_t weights = 0, bytes = 0;
  double needed[4] = {};  // lane-instructions per weight for up to 8, 16, 32 and 64 sequences
  double available = 0;   // that can be issued while memory delivers a weight
};
struct ProjectedStep {
  int64_t depth = 0, sequences = 1;
  uint64_t bytes = 0;
  double bytes_ms = 0, instructions_ms = 0;
  double ceiling_tok_s = 0;  // of all sequences together
  double share = 0, tok_s = 0;
};
struct ProjectedPrompt {
  int64_t tokens = 0;
  double floor_ms = 0, most_tok_s = 0;
};

struct Projection {
  Machine machine{};
  std::string share_source;
  uint64_t weight_bytes_per_token = 0;
  std::vector<ProjectedFormat> formats;
  std::string products;  // what multiplies a prompt: "FP4", "BF16", "BF16 and FP4"
  std::vector<ProjectedStep> speech;
  std::vector<ProjectedPrompt> prompts;

  Json json() const;
};

/// Looks at shapes and formats alone. `unsupported` for weights in F32, which have no kernel on a GPU.
Result<Projection> project(const model::Weights& weights, const Machine& machine, const ProjectionOptions& options);

}  // namespace nibble::gate

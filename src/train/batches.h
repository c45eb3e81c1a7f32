// Which samples a micro-batch holds, in an order that depends on (seed, epoch) alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "train/sample.h"

namespace nibble::train {

struct BatchOptions {
  uint64_t seed = 0;
  int64_t conversations = 8;            // at most so many samples in a micro-batch; 0 = any number
  int64_t max_tokens = 16384;           // at most so many tokens; 0 = any number
  Objective objective = Objective::ce;  // of samples that name none
};

/// Where a run stands: the next micro-batch. Written to checkpoints.
struct Cursor {
  int64_t epoch = 0, index = 0;

  bool operator==(const Cursor&) const = default;
};

/// The most that a micro-batch holds.
struct BatchExtent {
  int64_t tokens = 0, longest = 0, sequences = 0;
};
/// Of these samples in whatever order.
BatchExtent largest_batch(std::span<const Sample> samples, const BatchOptions& options);

/// A micro-batch: whole samples one after the other, without padding. T ids in B segments.
struct Batch {
  std::vector<int32_t> ids;       // [T]
  std::vector<int32_t> labels;    // [T]  row t is scored against labels[t]; -1 = no loss
  std::vector<float> ce, kl;      // [T]  weights of the two losses; 0 where labels is -1 or the objective is the other
  std::vector<int64_t> segments;  // [B+1]  sample b has the rows [segments[b], segments[b+1])
  std::vector<const Sample*> samples;  // [B]

  int64_t ce_rows = 0, kl_rows = 0;     // with a weight above 0
  double ce_weight = 0, kl_weight = 0;  // their sums: what a step divides its loss by, over all its micro-batches

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

/// The rows of these samples; none is a batch of nothing.
Batch make_batch(std::span<const Sample* const> samples, Objective objective);

/// The permutation of 0..count-1 for an epoch: Fisher-Yates by the counter-based generator.
std::vector<int64_t> epoch_order(int64_t count, uint64_t seed, int64_t epoch);

/// Every epoch holds every sample exactly once, so its last micro-batch may be small, and the number of micro-batches
/// may differ between epochs. Samples are taken in the epoch's order while they fit. Both limits are hard.
/// The samples must outlive it. Not safe from several threads.
class Batches {
 public:
  /// `invalid_argument` for a sample longer than max_tokens, limits below 0, and no samples.
  static Result<Batches> create(std::span<const Sample> samples, const BatchOptions& options);

  /// Micro-batches of this epoch.
  int64_t count(int64_t epoch);

  /// The micro-batch at the cursor, which moves on. A cursor at or behind the end of its epoch stands for the beginning
  /// of the next. Any cursor may be asked for: a resumed run pays for one shuffle.
  Batch next(Cursor& cursor);

 private:
  Batches(std::span<const Sample> samples, const BatchOptions& options) : samples_(samples), options_(options) {}

  void plan(int64_t epoch);

  std::span<const Sample> samples_;
  BatchOptions options_;
  int64_t planned_ = -1;  // the epoch of the plan below
  std::vector<const Sample*> order_;
  std::vector<size_t> begins_;  // of each micro-batch in order_, and the end
};

}  // namespace nibble::train

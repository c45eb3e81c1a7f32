// The states that the sequences of a micro-batch run on, kept from batch to batch.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/block.h"
#include "train/batches.h"

namespace nibble::train {

/// Tokens that a state has room for: lengths that grow little by little do not allocate every time.
constexpr int64_t sequence_capacity(int64_t longest) {
  constexpr int64_t kStep = 256;
  return (longest + kStep - 1) / kStep * kStep;
}

class Sequences {
 public:
  explicit Sequences(const model::Config& config) : config_(config) {}

  /// An empty state for every sample of the batch. Allocates only where a batch has more or longer sequences than any
  /// before it. Valid until the next call.
  std::span<const model::Segment> of(const Batch& batch);

 private:
  const model::Config& config_;
  std::vector<std::unique_ptr<model::State>> states_;
  std::vector<model::Segment> segments_;
};

}  // namespace nibble::train

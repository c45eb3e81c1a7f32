#include "train/sequences.h"

#include <algorithm>

namespace nibble::train {

std::span<const model::Segment> Sequences::of(const Batch& batch) {
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < batch.segments.size(); ++i) {
    longest = std::max(longest, batch.segments[i + 1] - batch.segments[i]);
  }
  segments_.clear();
  for (size_t i = 0; i + 1 < batch.segments.size(); ++i) {
    if (i == states_.size()) states_.emplace_back();
    std::unique_ptr<model::State>& state = states_[i];
    if (!state || state->capacity() < longest) {
      state = std::make_unique<model::State>(config_, sequence_capacity(longest), DType::f32);
    }
    state->reset();
    segments_.push_back({state.get(), batch.segments[i], batch.segments[i + 1]});
  }
  return segments_;
}

}  // namespace nibble::train

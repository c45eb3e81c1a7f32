// Runs one layer over the calibration set, a batch of whole conversations at a time.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/block.h"
#include "quantize/hidden_states.h"

namespace nibble::quantize {

/// Rows [begin, end) of all tokens: whole conversations, which begin with an empty state.
struct Batch {
  int64_t begin = 0, end = 0;
  std::vector<int64_t> lengths;

  int64_t tokens() const { return end - begin; }
};

/// Conversations in order, packed up to about `tokens` a batch.
std::vector<Batch> batches_of(std::span<const std::vector<int32_t>> chats, int64_t tokens = 2048);

/// Not thread-safe; everything it takes from cx.arena it gives back.
class LayerRunner {
 public:
  LayerRunner(Context& cx, const model::Config& config, int layer, std::span<const Batch> batches);

  using Visit = std::function<Status(const Batch&, const model::BlockTrace&, const Tensor& h)>;

  /// The mixer over the layer's inputs: visit sees the trace up to h_mid; h is empty.
  Status mixer(const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap, const Visit& visit);
  /// The MLP over residual streams h_mid: visit sees its part of the trace and the layer's output h.
  Status mlp(const model::BlockWeights& block, const HiddenStates& mid, const model::Tap* tap, const Visit& visit);
  /// The layer: visit sees the whole trace and its output h.
  Status whole(const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap, const Visit& visit);

 private:
  /// body(batch, rows of `in`, segments)
  Status each(const HiddenStates& in,
              const std::function<Status(const Batch&, const Tensor&, std::span<const model::Segment>)>& body);

  Context& cx_;
  model::Config config_;  // of this layer alone
  std::span<const Batch> batches_;
  std::vector<model::State> states_;
};

}  // namespace nibble::quantize

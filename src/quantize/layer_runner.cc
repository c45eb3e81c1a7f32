#include "quantize/layer_runner.h"

#include <algorithm>
#include <cstring>

namespace nibble::quantize {

std::vector<Batch> batches_of(std::span<const std::vector<int32_t>> chats, int64_t tokens) {
  std::vector<Batch> batches;
  for (const std::vector<int32_t>& chat : chats) {
    const auto length = static_cast<int64_t>(chat.size());
    if (batches.empty() || batches.back().tokens() + length > tokens) {
      const int64_t begin = batches.empty() ? 0 : batches.back().end;
      batches.push_back({begin, begin, {}});
    }
    batches.back().lengths.push_back(length);
    batches.back().end += length;
  }
  return batches;
}

LayerRunner::LayerRunner(Context& cx, const model::Config& config, int layer, std::span<const Batch> batches)
    : cx_(cx), config_(config), batches_(batches) {
  config_.layers = 1;
  config_.layer_types = {config.layer_types[static_cast<size_t>(layer)]};
  size_t sequences = 0;
  int64_t longest = 0;
  for (const Batch& batch : batches) {
    sequences = std::max(sequences, batch.lengths.size());
    for (int64_t length : batch.lengths) longest = std::max(longest, length);
  }
  for (size_t i = 0; i < sequences; ++i) states_.emplace_back(config_, longest, DType::f32);
}

Status LayerRunner::each(
    const HiddenStates& in,
    const std::function<Status(const Batch&, const Tensor&, std::span<const model::Segment>)>& body) {
  for (const Batch& batch : batches_) {
    if (cx_.cancel.cancelled()) {
      return cancelled("calibration: stopped").with_hint("the same command goes on after the last finished layer");
    }
    const Arena::Scope scope(cx_.arena);
    std::vector<model::Segment> segments;
    int64_t row = 0;
    for (size_t i = 0; i < batch.lengths.size(); ++i) {
      states_[i].reset();
      segments.push_back({&states_[i], row, row + batch.lengths[i]});
      row += batch.lengths[i];
    }
    NIBBLE_RETURN_IF_ERROR(body(batch, in.rows(batch.begin, batch.end), segments));
    in.drop(batch.begin, batch.end);
  }
  return {};
}

Status LayerRunner::mixer(const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap,
                          const Visit& visit) {
  return each(in, [&](const Batch& batch, const Tensor& h, std::span<const model::Segment> segments) {
    model::BlockTrace trace;
    model::mixer_forward(cx_, config_, block, 0, segments, tap, h, trace);
    return visit(batch, trace, Tensor());
  });
}

Status LayerRunner::mlp(const model::BlockWeights& block, const HiddenStates& mid, const model::Tap* tap,
                        const Visit& visit) {
  return each(mid, [&](const Batch& batch, const Tensor& h_mid, std::span<const model::Segment>) {
    model::BlockTrace trace;
    trace.h_mid = h_mid;
    Tensor h = cx_.arena.f32(h_mid.shape());
    model::mlp_forward(cx_, config_, block, tap, trace, h);
    return visit(batch, trace, h);
  });
}

Status LayerRunner::whole(const model::BlockWeights& block, const HiddenStates& in, const model::Tap* tap,
                          const Visit& visit) {
  return each(in, [&](const Batch& batch, const Tensor& h_in, std::span<const model::Segment> segments) {
    model::BlockTrace trace;
    model::mixer_forward(cx_, config_, block, 0, segments, tap, h_in, trace);
    Tensor h = cx_.arena.f32(h_in.shape());
    model::mlp_forward(cx_, config_, block, tap, trace, h);
    return visit(batch, trace, h);
  });
}

}  // namespace nibble::quantize

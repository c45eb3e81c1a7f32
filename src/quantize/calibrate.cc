#include "quantize/calibrate.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "model/forward.h"

namespace nibble::quantize {
namespace {

float amax(const Tensor& x) {
  float max = 0;
  for (float v : x.f32_span()) max = std::max(max, std::abs(v));
  return max;
}

}  // namespace

Result<Calibration> calibrate(Context& cx, model::Weights& weights, const std::vector<std::vector<int32_t>>& chats,
                              const Progress& progress) {
  NIBBLE_CHECK(cx.numeric == Numeric::exact);
  std::unordered_map<const ops::Linear*, float*> slots;
  Calibration result;
  weights.for_each_linear(
      [&](std::string_view name, ops::Linear& linear) { slots[&linear] = &result.input_amax[std::string(name)]; });

  model::Tap tap;
  tap.linear_input = [&](const ops::Linear& linear, const Tensor& x) {
    float& slot = *slots.at(&linear);
    slot = std::max(slot, amax(x));
  };

  size_t total = 0, longest = 0;
  for (const auto& chat : chats) {
    total += chat.size();
    longest = std::max(longest, chat.size());
  }
  const model::Config& config = weights.config;
  model::State state(config, static_cast<int64_t>(longest), DType::f32);
  for (const auto& chat : chats) {
    const Arena::Scope scope(cx.arena);
    state.reset();
    const auto T = static_cast<int64_t>(chat.size());
    Tensor hidden = cx.arena.f32({T, config.hidden});
    NIBBLE_RETURN_IF_ERROR(model::forward(cx, weights, chat, state, hidden, &tap));
    float& head = *slots.at(&weights.lm_head);
    head = std::max(head, amax(hidden));
    result.tokens += T;
    report(progress, static_cast<uint64_t>(result.tokens), total, "calibrate");
  }
  return result;
}

}  // namespace nibble::quantize

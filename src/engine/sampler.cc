#include "engine/sampler.h"

#include <cmath>
#include <limits>

namespace nibble::engine {

Sampler::Sampler(const Sampling& sampling, std::span<const int32_t> prompt, uint64_t seed) {
  rule_.temperature = sampling.temperature;
  rule_.top_p = sampling.top_p;
  rule_.top_k = sampling.top_k;
  if (sampling.min_p > 0) rule_.log_min_p = std::log(sampling.min_p);
  rule_.presence = sampling.presence_penalty;
  rule_.frequency = sampling.frequency_penalty;
  rule_.repetition = sampling.repetition_penalty;
  rule_.seed = sampling.seed.value_or(seed);
  if (sampling.repetition_penalty != 1.0f) {
    for (int32_t id : prompt) seen_[id].in_prompt = true;
  }
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> masked) {
  for (int32_t id : masked) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) {
      logits[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
  if (penalises()) penalise(logits);
  const int32_t id = ops::sample_row(logits, rule_, candidates_);
  ++seen_[id].in_output;
  ++rule_.position;
  return id;
}

void Sampler::penalise(std::span<float> logits) const {
  for (const auto& [id, count] : seen_) {
    if (static_cast<size_t>(id) >= logits.size()) continue;
    float& x = logits[static_cast<size_t>(id)];
    x = ops::penalised(x, rule_, true, count.in_output);
  }
}

}  // namespace nibble::engine

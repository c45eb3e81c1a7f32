#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/rng.h"

namespace nibble::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Descending by logit; equal logits by ascending id, so that an order never depends on the library's sort.
bool more_likely(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

Sampler::Sampler(const Sampling& sampling, std::span<const int32_t> prompt, uint64_t seed)
    : sampling_(sampling), seed_(sampling.seed.value_or(seed)) {
  if (sampling.repetition_penalty != 1.0f) {
    for (int32_t id : prompt) seen_[id].in_prompt = true;
  }
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> masked) {
  for (int32_t id : masked) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] = kMinusInfinity;
  }
  penalise(logits);
  const int32_t id = sampling_.temperature == 0.0f ? argmax(logits) : draw(logits);
  ++seen_[id].in_output;
  ++position_;
  return id;
}

void Sampler::penalise(std::span<float> logits) const {
  const Sampling& s = sampling_;
  if (s.repetition_penalty == 1.0f && s.presence_penalty == 0.0f && s.frequency_penalty == 0.0f) return;
  for (const auto& [id, count] : seen_) {
    if (static_cast<size_t>(id) >= logits.size()) continue;
    float& x = logits[static_cast<size_t>(id)];
    if (s.repetition_penalty != 1.0f) x = x > 0 ? x / s.repetition_penalty : x * s.repetition_penalty;
    if (count.in_output > 0) {
      x -= s.presence_penalty + s.frequency_penalty * static_cast<float>(count.in_output);
    }
  }
}

int32_t Sampler::draw(std::span<float> logits) {
  const Sampling& s = sampling_;
  const float best = *std::max_element(logits.begin(), logits.end());
  NIBBLE_CHECK(best > kMinusInfinity);
  // p >= min_p * p_max in terms of logits: (x - best) / temperature >= log(min_p).
  const float floor = s.min_p > 0 ? best + s.temperature * std::log(s.min_p) : kMinusInfinity;
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kMinusInfinity && logits[i] >= floor) candidates_.emplace_back(logits[i], static_cast<int32_t>(i));
  }
  const auto k = static_cast<size_t>(s.top_k);
  if (k > 0 && k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k), candidates_.end(),
                     more_likely);
    candidates_.resize(k);
  }
  double total = 0;
  for (auto& [x, id] : candidates_) {
    x = std::exp((x - best) / s.temperature);
    total += x;
  }
  if (s.top_p < 1.0f) {  // the smallest set of most likely ids whose probability reaches top_p
    std::sort(candidates_.begin(), candidates_.end(), more_likely);
    double kept = 0;
    size_t n = 0;
    while (n < candidates_.size() && kept < s.top_p * total) kept += candidates_[n++].first;
    candidates_.resize(std::max<size_t>(n, 1));
    total = kept;
  }
  const auto bits = philox(seed_, position_);
  double target = (static_cast<double>(bits[0]) * 0x1p32 + bits[1]) * 0x1p-64 * total;
  for (const auto& [p, id] : candidates_) {
    target -= p;
    if (target < 0) return id;
  }
  return candidates_.back().second;
}

}  // namespace nibble::engine

// Sampler: from logits to one token id.
//
// The chain, in this order: masks -> repetition, presence and frequency penalties -> temperature -> min_p -> top_k ->
// top_p -> draw. Temperature 0 takes the argmax after the penalties, ties to the lowest id. Penalties follow vLLM:
// repetition looks at prompt and output, presence and frequency at the output alone.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"

namespace nibble::engine {

/// One per request. The draw for position i depends on (seed, i) and the logits alone, so neither batching nor
/// scheduling can change a text.
class Sampler {
 public:
  /// `seed` is used when the request has none.
  Sampler(const Sampling& sampling, std::span<const int32_t> prompt, uint64_t seed);

  /// Overwrites `logits` [V]. `masked` ids get probability 0; at least one id must stay.
  int32_t sample(std::span<float> logits, std::span<const int32_t> masked);

 private:
  void penalise(std::span<float> logits) const;
  int32_t draw(std::span<float> logits);

  Sampling sampling_;
  uint64_t seed_;
  uint64_t position_ = 0;
  struct Count {
    bool in_prompt = false;
    int in_output = 0;
  };
  std::unordered_map<int32_t, Count> seen_;
  std::vector<std::pair<float, int32_t>> candidates_;  // (logit, id)
};

}  // namespace nibble::engine

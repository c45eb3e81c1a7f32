// Sampler: from logits to one token id.
//
// The chain, in this order: masks -> repetition, presence and frequency penalties -> temperature -> min_p -> top_k ->
// top_p -> draw. Temperature 0 takes the argmax after the penalties, ties to the lowest id. The arithmetic is that of
// ops/sample, which can do the same where the logits are.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "ops/sample/sample.h"

namespace nibble::engine {

/// One per request. The draw for position i depends on (seed, i) and the logits alone, so neither batching nor
/// scheduling can change a text.
class Sampler {
 public:
  /// `seed` is used when the request has none.
  Sampler(const Sampling& sampling, std::span<const int32_t> prompt, uint64_t seed);

  /// Overwrites `logits` [V]. `masked` ids get probability 0; at least one id must stay.
  int32_t sample(std::span<float> logits, std::span<const int32_t> masked);

  bool penalises() const { return rule_.repetition != 1 || rule_.presence != 0 || rule_.frequency != 0; }
  /// How ops::sample chooses the same id for the token at `position` of the output; the penalties follow the table's
  /// row that the caller sets.
  ops::SampleRule rule(int64_t position) const {
    ops::SampleRule rule = rule_;
    rule.position = static_cast<uint64_t>(position);
    return rule;
  }

 private:
  void penalise(std::span<float> logits) const;

  ops::SampleRule rule_;
  struct Count {
    bool in_prompt = false;
    int in_output = 0;
  };
  std::unordered_map<int32_t, Count> seen_;
  std::vector<std::pair<float, int32_t>> candidates_;
};

}  // namespace nibble::engine

// What asking has cost so far, and what it may still cost.
#pragma once

#include <cstdint>
#include <optional>

#include "synth/recipe.h"

namespace nibble::synth {

struct Budget {
  int64_t tokens = 0;  // prompts and answers together; 0 = any
  double cost = 0;     // in the currency of the prices; 0 = any
};

struct Spent {
  int64_t requests = 0, prompt_tokens = 0, completion_tokens = 0;
  double cost = 0;

  int64_t tokens() const { return prompt_tokens + completion_tokens; }
};

/// A hard limit: a request is let through only if the budget holds its prompt and the longest answer that it may get,
/// with those of all requests in flight. Not thread-safe.
class Ledger {
 public:
  Ledger(Prices prices, Budget budget) : prices_(prices), budget_(budget) {}

  /// How long the answer may be, at most `wanted`: less when little is left, but at least kLeastAnswer (or `wanted`).
  /// Nothing where the budget does not hold that; what is reserved must be settled.
  std::optional<int64_t> reserve(int64_t prompt_tokens, int64_t wanted);
  /// The request is over: what was reserved is free again. What it cost is counted by add().
  void settle(int64_t prompt_tokens, int64_t granted);
  void add(int64_t prompt_tokens, int64_t completion_tokens);

  const Spent& spent() const { return spent_; }

  static constexpr int64_t kLeastAnswer = 256;

 private:
  double price(int64_t prompt_tokens, int64_t completion_tokens) const;

  Prices prices_;
  Budget budget_;
  Spent spent_;
  int64_t reserved_prompt_ = 0, reserved_answer_ = 0;
};

}  // namespace nibble::synth

// Divergence: how far a quantized model's predictions are from those of its reference, over whole conversations.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/progress.h"
#include "gate/stats.h"
#include "io/json.h"
#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::gate {

/// All means are over the tokens of all conversations; the next-token figures leave out each conversation's last token.
struct Divergence {
  int64_t tokens = 0;
  double mean_kl = 0, standard_error = 0, median_kl = 0, p99_kl = 0;  // KL(A || B) in nats, full vocabulary
  double top1 = 0;                                                    // share of tokens with equal argmax
  double perplexity_a = 0, perplexity_b = 0;
  std::vector<double> chat_kl;       // the KL of each conversation, summed over its tokens
  std::vector<int64_t> chat_tokens;  // of each conversation

  Json json() const;  // without the conversations
};

/// Runs the reference `a` and every model of `b` over the same ids, each conversation from an empty state, in exact
/// numerics; the reference once. The vocabularies must agree (`invalid_argument`). Progress counts tokens. `cancelled`
/// through cx.cancel. With `gpu` all models compute there (chat_reader.h); predictions are compared on the CPU.
Result<std::vector<Divergence>> measure_divergence(Context& cx, const model::Weights& a,
                                                   std::span<const model::Weights* const> b,
                                                   const std::vector<std::vector<int32_t>>& chats,
                                                   const Progress& progress, Context* gpu = nullptr);

/// The same for one model.
Result<Divergence> measure_divergence(Context& cx, const model::Weights& a, const model::Weights& b,
                                      const std::vector<std::vector<int32_t>>& chats, const Progress& progress,
                                      Context* gpu = nullptr);

/// How much further from the reference one model is than another over the same conversations, and in which interval
/// that lies at 95 % if other conversations had been drawn (ratio_bootstrap_95 over conversations).
struct Difference {
  double mean_kl = 0;
  Interval interval = {};
};
Difference difference(const Divergence& model, const Divergence& from);

}  // namespace nibble::gate

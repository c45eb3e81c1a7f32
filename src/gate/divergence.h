// Divergence: how far a quantized model's predictions are from those of its reference, over whole conversations.
#pragma once

#include <cstdint>
#include <vector>

#include "base/progress.h"
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

  Json json() const;
};

/// Runs both models over the same ids, each conversation from an empty state, in exact numerics. The vocabularies must
/// agree (`invalid_argument`). Progress counts tokens. `cancelled` through cx.cancel.
Result<Divergence> measure_divergence(Context& cx, const model::Weights& a, const model::Weights& b,
                                      const std::vector<std::vector<int32_t>>& chats, const Progress& progress);

}  // namespace nibble::gate

// The likeliest next tokens of a model after every token of conversations, for comparison with another engine that
// runs the same file.
#pragma once

#include <cstdint>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::gate {

/// Writes one line of JSON for each conversation:
///   {"ids": [id of token t, …], "top": [[[id, log-probability], …], …]}
/// top[t] is what may follow token t: the `count` (at least 1) likeliest ids, likeliest first, the smaller id first
/// among equals, with log softmax in nats over the whole vocabulary. Fewer where the vocabulary has fewer.
/// In the numerics of `cx`, or with `gpu` those of chat_reader.h. Progress counts tokens; `cancelled` through
/// cx.cancel.
Status write_top_logprobs(Context& cx, const model::Weights& weights, const std::vector<std::vector<int32_t>>& chats,
                          int64_t count, const Path& file, const Progress& progress, Context* gpu = nullptr);

}  // namespace nibble::gate

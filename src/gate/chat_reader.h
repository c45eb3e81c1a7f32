// ChatReader: one model while it reads conversations whole, each from an empty state.
#pragma once

#include <span>

#include "model/forward.h"

namespace nibble::gate {

class ChatReader {
 public:
  /// `longest`: of the conversations to be read, in tokens.
  ChatReader(const model::Weights& weights, int64_t longest)
      : weights_(weights), state_(weights.config, longest, DType::f32) {}

  /// The rows of the conversation lie in cx.arena: the caller's Scope holds them.
  Status read(Context& cx, std::span<const int32_t> chat) {
    hidden_ = cx.arena.f32({std::ssize(chat), weights_.config.hidden});
    state_.reset();
    return model::forward(cx, weights_, chat, state_, hidden_);
  }
  /// [end-begin,V] of tokens [begin, end) of the conversation that was read last.
  Tensor logits(Context& cx, int64_t begin, int64_t end) const {
    Tensor out = cx.arena.f32({end - begin, weights_.config.vocab});
    model::head(cx, weights_, hidden_.rows(begin, end), out);
    return out;
  }

 private:
  const model::Weights& weights_;
  model::State state_;
  Tensor hidden_;
};

/// Logits are held for this many tokens at a time: a 248k vocabulary is wide.
inline constexpr int64_t kLogitRows = 64;

}  // namespace nibble::gate

// ChatReader: one model while it reads conversations whole, each from an empty state, on the CPU or on a GPU.
#pragma once

#include <memory>
#include <span>

#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::gate {

class ChatReader {
 public:
  virtual ~ChatReader() = default;

  /// Rows of the conversation may lie in cx.arena: the caller's Scope holds them.
  virtual Status read(Context& cx, std::span<const int32_t> chat) = 0;
  /// [end-begin,V] f32, in cx.arena, of tokens [begin, end) of the conversation that was read last; at most kLogitRows.
  virtual Result<Tensor> logits(Context& cx, int64_t begin, int64_t end) = 0;
};

/// Logits are held for this many tokens at a time: a 248k vocabulary is wide.
inline constexpr int64_t kLogitRows = 64;

/// `longest`: of the conversations to be read, in tokens. With `gpu`, the context of one that nothing else takes
/// scratch from, the weights are copied there and read there, in BF16 between products. What is given outlives the
/// reader.
Result<std::unique_ptr<ChatReader>> open_reader(const model::Weights& weights, int64_t longest, Context* gpu);

}  // namespace nibble::gate

// The forward pass of Qwen3.5: the same code calibrates, evaluates, trains, reads prompts and speaks.
//
//   h = embed[ids]
//   per layer:  h += mixer(rms_norm(h));  h += down(silu(gate(n)) * up(n)),  n = rms_norm(h)
//   hidden = rms_norm(h);  logits = hidden lm_head^T
// mixer = full attention with an output gate, or the gated delta rule. Source of the formulas: docs/numerics.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "model/block.h"

namespace nibble::model {

/// What a backward pass needs of a forward. The tensors lie in the arena of the call, so the caller's Scope holds them.
struct Tape {
  bool keep_traces = false;        // false: a backward pass computes the intermediates of each block again
  std::vector<Tensor> border;      // L+1 times [T,H]: the input of each block, and of the final norm
  std::vector<BlockTrace> traces;  // L with keep_traces, else none
};

/// Runs the rows of all segments, which cover ids in order, and advances their states. hidden [T,H] f32 receives the
/// post-norm rows. The bits of a sequence's rows do not depend on what else is in the batch.
/// `cancelled` when cx.cancel is set between layers; the states are then undefined until reset() or restore().
/// ids must lie in [0, vocab) and fit the states' capacities: the caller has checked them at its door.
Status forward(Context& cx, const Weights& weights, std::span<const int32_t> ids, std::span<const Segment> segments,
               Tensor& hidden, const Tap* tap = nullptr, Tape* tape = nullptr);

/// The same for one sequence.
Status forward(Context& cx, const Weights& weights, std::span<const int32_t> ids, State& state, Tensor& hidden,
               const Tap* tap = nullptr);

/// logits [T,V] f32 of post-norm rows hidden [T,H].
void head(Context& cx, const Weights& weights, const Tensor& hidden, Tensor& logits);

/// Runs a prompt in pieces of 256 tokens, so that scratch memory does not grow with it, and leaves the logits [1,V] of
/// its last token. At least one id.
Status read_prompt(Context& cx, const Weights& weights, std::span<const int32_t> ids, State& state, Tensor& logits);

}  // namespace nibble::model

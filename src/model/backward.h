// The backward pass of Qwen3.5: gradients of every parameter from the gradient of the hidden rows.
//
// Gradients have the form of the weights they belong to: a Weights whose tensors are f32 (a Linear's is its `weight`).
// A tensor that is empty there is not wanted. They accumulate; whoever begins a step clears them.
#pragma once

#include "model/forward.h"

namespace nibble::model {

using Gradients = Weights;

/// Sees the gradient dy [T,out] of every linear's output beside its input x [T,in]; valid during the call only.
using GradientTap = std::function<void(const ops::Linear& linear, const Tensor& x, const Tensor& dy)>;

/// The gradients of one layer. h_in [T,H] is what block_forward was given, trace what it left. dh [T,H] is the gradient
/// of the layer's output on entry and of its input on return. Every segment began with an empty state, and the gradient
/// of its last state is zero. Numeric::exact. Scratch stays in cx.arena until the caller's Scope ends.
void block_vjp(Context& cx, const Config& config, const BlockWeights& weights, std::span<const Segment> segments,
               const Tensor& h_in, const BlockTrace& trace, BlockWeights& gradients, Tensor& dh,
               const GradientTap& tap = {});

/// The gradients of a forward of `ids` that recorded `tape`. dhidden [T,H] is the gradient of its post-norm rows and is
/// overwritten. The states must be those of the forward; they are reset and used again where the tape has no traces.
/// With or without traces the bits are the same. `cancelled` through cx.cancel, with gradients that mean nothing.
Status backward(Context& cx, const Weights& weights, std::span<const int32_t> ids, std::span<const Segment> segments,
                const Tape& tape, Tensor& dhidden, Gradients& gradients, const GradientTap& tap = {});

}  // namespace nibble::model

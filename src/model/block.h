// One layer of Qwen3.5 over the rows of a batch, and what it computes on the way.
//
// Rows of several sequences stand one after the other without padding. Projections, norms and gates do not care; what
// mixes tokens (convolution, delta rule, rotary positions, attention) runs sequence by sequence.
#pragma once

#include <functional>
#include <span>

#include "model/state.h"
#include "model/weights.h"
#include "ops/norm/gated_rms_norm.h"
#include "tensor/context.h"

namespace nibble::model {

/// The rows [begin, end) of a batch continue the sequence of `state`.
struct Segment {
  State* state;
  int64_t begin, end;
};

/// What an observer may watch; each may be empty. Tensors are valid during the call only.
struct Tap {
  std::function<void(const ops::Linear& linear, const Tensor& x)> linear_input;  // x [T,in], before any rounding
  std::function<void(int layer, const Tensor& h)> block_output;                  // h [T,H]; layer -1 is the embedding
};

/// The intermediate values of a layer, which its backward pass reads. Views into the arena of the call.
struct AttentionTrace {
  Tensor q_raw, gate;  // [T,nh,D] the two halves of q_proj's rows; gate is empty where the model has none
  Tensor k_raw;        // [T,nkv,D]
  Tensor q, k, v;      // after norm and rotation
  Tensor o;            // [T,nh,D] attention's output
  Tensor gated;        // [T,nh,D] o * sigmoid(gate): the input of o_proj
};
struct GdnTrace {
  Tensor mix;           // [T,CD] the convolution's input
  Tensor z;             // [T,Hv,Dv]
  Tensor a, b;          // [T,Hv]
  Tensor q_raw, k_raw;  // [T,Hk,Dk] after convolution and SiLU
  Tensor q, k;          // L2-normed
  Tensor v;             // [T,Hv,Dv]
  Tensor g, beta;       // [T,Hv]
  Tensor y;             // [T,Hv,Dv] the delta rule's output
  Tensor gated;         // [T,Hv,Dv] after the gated norm: the input of out_proj
};
struct MlpTrace {
  Tensor gate, up;  // [T,I]
  Tensor y;         // [T,I] silu(gate) * up: the input of down_proj
};
struct BlockTrace {
  Tensor n;  // [T,H] normed input of the mixer
  AttentionTrace attention;
  GdnTrace gdn;
  Tensor h_mid;  // [T,H] residual stream between mixer and MLP
  Tensor n_mid;  // [T,H] normed input of the MLP
  MlpTrace mlp;
};

/// The eps of the delta rule's q and k normalisation: a constant of the architecture, not of the config.
constexpr float kL2Eps = 1e-6f;

constexpr ops::Gate gate_of(GateType type) {
  return type == GateType::silu ? ops::Gate::silu : ops::Gate::sigmoid;
}

/// The first half: h_mid = h + mixer(norm(h)), left in trace.h_mid [T,H] beside the intermediates of the mixer. State
/// and scratch as for block_forward.
void mixer_forward(Context& cx, const Config& config, const BlockWeights& weights, int layer,
                   std::span<const Segment> segments, const Tap* tap, const Tensor& h, BlockTrace& trace);

/// The second half: h [T,H] = h_mid + mlp(norm(h_mid)) for trace.h_mid.
void mlp_forward(Context& cx, const Config& config, const BlockWeights& weights, const Tap* tap, BlockTrace& trace,
                 Tensor& h);

/// Both. h [T,H] becomes the layer's output. Keys, values, S and convolution columns of every segment's layer state are
/// updated; positions are not advanced. All intermediates stay in cx.arena until the caller's Scope ends.
void block_forward(Context& cx, const Config& config, const BlockWeights& weights, int layer,
                   std::span<const Segment> segments, const Tap* tap, Tensor& h, BlockTrace& trace);

}  // namespace nibble::model

// The kinds of op that a pass of BatchRunner is made of, and what all ops of a kind must move or multiply in it.
#pragma once

#include "model/weights.h"

namespace nibble::model {

enum class PassOp : uint8_t {
  input,          // ids and positions on their way to the device
  embed,          //
  norm,           // with the addition to the residual stream
  attention_in,   // q, k and v
  attention,      //
  attention_out,  // o_proj
  delta_in,       // qkv, z, a and b
  delta,          // convolution, delta rule and its norm
  delta_out,      // out_proj
  gate_up,        // with SwiGLU
  down,           //
  head,           //
  sampling,       // also of the likeliest
};
inline constexpr int kPassOps = static_cast<int>(PassOp::sampling) + 1;
const char* name(PassOp op);

/// Bytes that a step must move for `sequences` sequences that stand at `position`; all kinds together: bytes_per_token
/// and, for each sequence, state_bytes_per_token. What activations move is not counted.
uint64_t step_bytes(const Weights& weights, PassOp op, int64_t sequences, int64_t position, DType kv_dtype);

/// Floating-point operations of products, of attention and of the delta rule in reading a prompt from its first token;
/// the head sees one row.
double prompt_flops(const Weights& weights, PassOp op, int64_t tokens);

}  // namespace nibble::model

// gated_attention: what a full-attention layer does between its projections, in one op.
#pragma once

#include "ops/batch.h"
#include "tensor/context.h"

namespace nibble::ops {

struct GatedAttentionWeights {
  Tensor q_norm, k_norm;  // [D] f32, zero-centred
  float eps = 1e-6f;
  int64_t rotary_dim = 0;
  double rope_theta = 0;
};

/// gated_attention: for each sequence of the batch, with the keys and values of its slot,
///   q | gate = q_gate, per head D rows of each;   q, k = rope(rms_norm(q)), rope(rms_norm(k))
///   keys[slot,p], values[slot,p] = k, v at the row's position p
///   y = attention(q, keys, values, 1/sqrt(D)) * sigmoid(gate)
/// which are the formulas of the ops of these names.
/// shapes   q_gate [T,nh,2D]   k, v [T,nkv,D]   y [T,nh,D]   keys, values [slots,capacity,nkv,D]
///          q_gate [T,nh,D]: a model without the gate, whose factor is then missing
///          q_gate, k, v, y: f32 on a CPU, bf16 on a GPU; keys, values: f32 or bf16 on a CPU, bf16 on a GPU
///          D on a GPU: a multiple of 16, at most 256; only 256 is fast
/// numeric  f32 inside; q and the softmax's weights are rounded to BF16 before products on a GPU, y is rounded once.
///          Keys are visited in pieces counted from position 0: for sequences up to 16 rows a row's bits depend on its
///          position and the cache alone; on a GPU those of longer ones also on T and `reach`.
/// effects  writes y and the batch's positions of keys and values; scratch from cx.arena
void gated_attention(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                     const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y);

/// What it takes of a GPU's arena for T = rows, nh = heads, nkv = kv_heads, D = size and the bounds of `batch`, whose
/// tensors are not read. Most of it are partial results of the sequences of up to 16 rows: one of nh*D floats per row
/// and 128 positions below `reach`. A call that mixes such sequences with longer ones must allow each of them 16 rows.
size_t gated_attention_scratch_bytes(int64_t rows, const Batch& batch, int64_t heads, int64_t kv_heads, int64_t size);

}  // namespace nibble::ops

// The siblings of gated_attention behind its checks, and how a batch is cut for a GPU.
#pragma once

#include <algorithm>

#include "ops/attention/gated_attention.h"

namespace nibble::ops {

void gated_attention_cpu(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                         const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y);
void gated_attention_cuda(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                          const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y);

/// Sequences of up to kShortRows rows take the kernel that splits the keys, in pieces of kKeyPiece counted from
/// position 0; longer ones the kernel that splits the rows. Both are made for heads of kFastSize.
constexpr int64_t kShortRows = 16, kKeyPiece = 128, kFastSize = 256;

struct AttentionPlan {
  AttentionPlan(int64_t rows, const Batch& batch, int64_t size)
      : fast(size == kFastSize),
        some_short(fast && (rows <= kShortRows || batch.sequences > 1)),
        some_long(fast && rows > kShortRows && batch.longest > kShortRows),
        row_bound(some_short ? std::min({batch.longest, kShortRows, rows}) : 0),
        pieces((batch.reach + kKeyPiece - 1) / kKeyPiece) {}

  bool fast, some_short, some_long;  // what the batch may hold: its numbers lie on the GPU
  int64_t row_bound;                 // rows of a short sequence
  int64_t pieces;                    // for a row at the last position

  int64_t partial_rows(const Batch& batch) const { return batch.sequences * row_bound; }
};

}  // namespace nibble::ops

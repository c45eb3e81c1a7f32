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
  AttentionPlan(int64_t rows, const Batch& batch, int64_t heads, int64_t kv_heads, int64_t size)
      : fast(size == kFastSize),
        some_short(fast && (rows <= kShortRows || batch.sequences > 1)),
        some_long(fast && rows > kShortRows && batch.longest > kShortRows),
        row_bound(some_short ? std::min({batch.longest, kShortRows, rows}) : 0),
        pieces((batch.reach + kKeyPiece - 1) / kKeyPiece),
        splits(some_long ? splits_for(rows * heads / kv_heads, kv_heads, batch.reach) : 1) {}

  bool fast, some_short, some_long;  // what the batch may hold: its numbers lie on the GPU
  int64_t row_bound;                 // rows of a short sequence
  int64_t pieces;                    // for a row at the last position
  int64_t splits;                    // into which the keys of a long sequence are cut

  int64_t partials(const Batch& batch, int64_t heads) const { return batch.sequences * row_bound * heads * pieces; }
  int64_t long_partials(int64_t rows, int64_t heads) const { return splits > 1 ? rows * heads * splits : 0; }

 private:
  /// A few rows over many keys would leave most of a GPU idle: as many blocks as an H200 has multiprocessors.
  static int64_t splits_for(int64_t rows_of_kv_head, int64_t kv_heads, int64_t reach) {
    constexpr int64_t kBlocks = 132, kRowsOfBlock = 128, kLeastKeys = 512;
    const int64_t blocks = kv_heads * ((rows_of_kv_head + kRowsOfBlock - 1) / kRowsOfBlock);
    return std::clamp<int64_t>(kBlocks / blocks, 1, std::max<int64_t>(1, reach / kLeastKeys));
  }
};

}  // namespace nibble::ops

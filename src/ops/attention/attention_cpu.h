// The CPU kernel of attention, between its checks (attention.cc) and the SIMD targets (attention_cpu.cc).
#pragma once

#include "tensor/numeric.h"
#include "tensor/tensor.h"

namespace nibble::ops {

/// One kv head and the query rows of a few neighbouring tokens that read it.
struct AttentionTile {
  const float* q;               // token 0, first query head of the group; heads of a group lie side by side
  float* o;                     // likewise
  int64_t tokens, group, size;  // query tokens; query heads per kv head; D
  int64_t query_stride;         // nh * D, between tokens
  int64_t position;             // of token 0
  const Tensor *keys, *values;  // [capacity,nkv,D]
  int64_t kv_head;
  float scale;
};

/// Rows (token, head of the group) that share the blocks of one tile; a group larger than that is one token's tile.
constexpr int64_t kAttentionRows = 64;
constexpr int64_t kKeyBlock = 64;

/// Floats of scratch for `rows` rows: queries, outputs, scores, running maxima and sums, one block of keys or values.
constexpr int64_t attention_floats(int64_t rows, int64_t size) {
  const int64_t padded = (size + 15) / 16 * 16;
  return rows * (2 * padded + kKeyBlock + 2) + (kKeyBlock + 8) * padded + 64;
}

void attention_tile_cpu(const AttentionTile& tile, float* scratch);

}  // namespace nibble::ops

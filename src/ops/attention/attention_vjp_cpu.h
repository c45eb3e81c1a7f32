// The CPU kernels of attention_vjp, between its checks (attention_vjp.cc) and the SIMD targets (attention_vjp_cpu.cc).
#pragma once

#include <cstdint>

#include "ops/attention/attention_cpu.h"

namespace nibble::ops {

/// One kv head of a sequence in the forms that the products want, in blocks of kKeyBlock keys; the last block and D are
/// padded with zeros.
struct PackedKeys {
  int64_t tokens, size;           // T, D
  float *keys, *keys_transposed;  // [blocks,64,padded], [blocks,padded,64]
  float* values_transposed;       // [blocks,padded,64]
  int64_t blocks() const { return (tokens + kKeyBlock - 1) / kKeyBlock; }
  int64_t padded() const { return (size + 15) / 16 * 16; }
  int64_t floats() const { return blocks() * kKeyBlock * padded(); }  // of each array
};

/// Fills block `block` from k and v, whose rows are `stride` apart.
void attention_pack_cpu(const PackedKeys& packed, const float* k, const float* v, int64_t stride, int64_t block);

/// The query rows of a few neighbouring tokens and one kv head.
struct AttentionVjpTile {
  const float *q, *dy;    // token 0, first query head of the group; heads of a group lie side by side
  float* dq;              // likewise
  int64_t tokens, group;  // query tokens; query heads per kv head
  int64_t query_stride;   // nh * D, between tokens
  int64_t position;       // of token 0
  const PackedKeys* packed;
  float *dk, *dv;  // [blocks,64,padded], added to
  float scale;
};

/// Floats of scratch: q, dy, dq, and for every key the probabilities and their gradients.
constexpr int64_t attention_vjp_floats(int64_t rows, int64_t size, int64_t blocks) {
  const int64_t padded = (size + 15) / 16 * 16;
  return rows * (3 * padded + 2 * blocks * kKeyBlock);
}

void attention_vjp_tile_cpu(const AttentionVjpTile& tile, float* scratch);

}  // namespace nibble::ops

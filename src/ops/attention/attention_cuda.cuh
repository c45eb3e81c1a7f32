// What the kernels of gated_attention share: their operands, and where a row of the batch stands.
#pragma once

#include "ops/attention/gated_attention_backends.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {

using bf16 = __nv_bfloat16;

/// Results over parts of the keys, for rows and heads.
struct Partials {
  int count;      // parts
  float* y;       // [rows,nh,count,D], the sum of weights times values
  float2* scale;  // [rows,nh,count]: maximum of the scores (a weight is 2^(score - maximum)) and sum of the weights
};

struct AttentionOperands {
  const int *begin, *slot, *position;  // of the batch
  int sequences;
  int heads, kv_heads, size;
  int64_t capacity;
  const bf16 *q_gate, *k, *v;
  int q_stride;  // between heads of q_gate: D, or 2D where a gate follows q
  bf16* q;       // [T,nh,D], normed and turned
  bf16 *keys, *values, *y;
  float score_scale;  // log2(e) / sqrt(D): softmax counts in powers of two
  Partials pieces;    // of the short sequences; rows: sequences * row_bound
  int row_bound;
  Partials splits;  // of the long ones; rows: T
};

/// Queues the one launch that fills q and the new positions of the caches, before attention_short or another.
void attention_prepare(Context& cx, const AttentionOperands& a, int64_t rows, const GatedAttentionWeights& w);
/// The sequences of up to kShortRows rows, D = kFastSize.
void attention_short(Context& cx, const AttentionOperands& a);
/// The longer ones, D = kFastSize; `rows` is T.
void attention_long(Context& cx, const AttentionOperands& a, int64_t rows);
/// The same on Hopper's own matrix instructions.
void attention_long_wgmma(Context& cx, const AttentionOperands& a, int64_t rows);
/// y of the short sequences out of `pieces`, of the long ones out of `splits`.
void attention_add_pieces(Context& cx, const AttentionOperands& a);
void attention_add_splits(Context& cx, const AttentionOperands& a, int64_t rows);
/// All sequences, any D.
void attention_any_size(Context& cx, const AttentionOperands& a, int64_t rows);

#ifdef __CUDACC__
__device__ inline int lane_id() {
  return static_cast<int>(threadIdx.x % 32);
}
__device__ inline int warp_id() {
  return static_cast<int>(threadIdx.x / 32);
}

struct Sequence {
  int index, begin, rows, slot, position;
};

__device__ inline Sequence sequence_at(const AttentionOperands& a, int index) {
  const int begin = a.begin[index];
  return {index, begin, a.begin[index + 1] - begin, a.slot[index], a.position[index]};
}

/// The sequence of a row; slot -1 for a row of none. A whole warp asks for the same row, and reads all that it may need
/// at once.
__device__ inline Sequence sequence_of_row(const AttentionOperands& a, int row) {
  for (int first = 0; first < a.sequences; first += 32) {
    const int index = min(first + lane_id(), a.sequences - 1);
    const Sequence s = sequence_at(a, index);
    const unsigned later = __ballot_sync(0xFFFFFFFF, s.begin + s.rows > row);
    if (later == 0) continue;
    const int lane = __ffs(static_cast<int>(later)) - 1;
    return {first + lane, __shfl_sync(0xFFFFFFFF, s.begin, lane), __shfl_sync(0xFFFFFFFF, s.rows, lane),
            __shfl_sync(0xFFFFFFFF, s.slot, lane), __shfl_sync(0xFFFFFFFF, s.position, lane)};
  }
  return {a.sequences, 0, 0, -1, 0};
}

/// Element 0 of a kv head at a position; positions are kv_heads * size elements apart.
__device__ inline int64_t cache_at(const AttentionOperands& a, int slot, int64_t position, int kv_head) {
  return ((slot * a.capacity + position) * a.kv_heads + kv_head) * a.size;
}

/// 2^x; 0 for -infinity.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float logistic(float x) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

__device__ inline float low_bf16(uint32_t x) {
  return __uint_as_float(x << 16);
}
__device__ inline float high_bf16(uint32_t x) {
  return __uint_as_float(x & 0xFFFF0000);
}
#endif

}  // namespace nibble::ops

// What happens to q, k and v before attention: norm and rope, and the new positions of the caches.
#include "ops/attention/attention_cuda.cuh"
#include "ops/rope/turn.h"

namespace nibble::ops {
namespace {

constexpr int kWarps = 8, kMaxPairs = kFastSize / 2;

struct HeadNorm {
  const float *q_norm, *k_norm;
  float eps;
  int rotary_dim;
  uint64_t steps[kMaxPairs];
};

/// A block has one row and kWarps of its nh + 2 nkv heads; a warp has a head, a lane 8 neighbouring elements of it.
__global__ void __launch_bounds__(kWarps * 32)
    prepare(const __grid_constant__ AttentionOperands a, const __grid_constant__ HeadNorm norm) {
  __shared__ CosSin turns[kMaxPairs];
  __shared__ float heads[kWarps][kFastSize];
  const int row = blockIdx.x, head = blockIdx.y * kWarps + warp_id(), first = lane_id() * 8;
  const bool is_q = head < a.heads, is_k = !is_q && head < a.heads + a.kv_heads;
  const bool active = first < a.size && head < a.heads + 2 * a.kv_heads;
  const int kv_head = (head - a.heads) % a.kv_heads, pairs = norm.rotary_dim / 2;
  const int64_t in_row = row;
  const bf16* const from = is_q ? a.q_gate + (in_row * a.heads + head) * a.q_stride
                                : (is_k ? a.k : a.v) + (in_row * a.kv_heads + kv_head) * a.size;
  float gain[8] = {};
  if (active && (is_q || is_k)) {
    const float4* const weight = reinterpret_cast<const float4*>((is_q ? norm.q_norm : norm.k_norm) + first);
    reinterpret_cast<float4*>(gain)[0] = weight[0];
    reinterpret_cast<float4*>(gain)[1] = weight[1];
  }
  // In this order: whoever starts after this kernel let it may then rely on all that came before this kernel.
  wait_for_predecessor();
  let_successor_start();
  uint4 packed = active ? *reinterpret_cast<const uint4*>(from + first) : uint4{};
  const Sequence sequence = sequence_of_row(a, row);
  if (sequence.slot < 0) return;
  const int position = sequence.position + row - sequence.begin;
  for (int i = threadIdx.x; i < pairs; i += kWarps * 32) {
    turns[i] = cos_sin(static_cast<uint64_t>(position) * norm.steps[i]);
  }
  __syncthreads();

  bf16* const to = is_q ? a.q + (in_row * a.heads + head) * a.size
                        : (is_k ? a.keys : a.values) + cache_at(a, sequence.slot, position, kv_head);
  if (is_q || is_k) {
    uint32_t(&words)[4] = reinterpret_cast<uint32_t(&)[4]>(packed);
    float x[8], squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x[i] = i % 2 == 0 ? low_bf16(words[i / 2]) : high_bf16(words[i / 2]);
      squares = fmaf(x[i], x[i], squares);
    }
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(a.size) + norm.eps);
    float* const shared = heads[warp_id()];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (active) shared[first + i] = x[i] = x[i] * rstd * (1.0f + gain[i]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int at = first + i;
      if (at >= norm.rotary_dim) break;
      const bool low = at < pairs;
      const CosSin turn = turns[low ? at : at - pairs];
      const float other = shared[low ? at + pairs : at - pairs];
      x[i] = fmaf(low ? -other : other, turn.s, x[i] * turn.c);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
  }
  if (active) *reinterpret_cast<uint4*>(to + first) = packed;
}

}  // namespace

void attention_prepare(Context& cx, const AttentionOperands& a, int64_t rows, const GatedAttentionWeights& w) {
  HeadNorm norm{w.q_norm.f32(), w.k_norm.f32(), w.eps, static_cast<int>(w.rotary_dim), {}};
  for (int64_t i = 0; i < w.rotary_dim / 2; ++i) norm.steps[i] = rope_step(i, w.rotary_dim, w.rope_theta);
  const int heads = a.heads + 2 * a.kv_heads;
  launch(cx, "gated_attention: prepare", prepare, dim3(static_cast<unsigned>(rows), (heads + kWarps - 1) / kWarps),
         kWarps * 32, 0, a, norm);
}

}  // namespace nibble::ops

// Attention for heads of any size: plain, and slow. Only the tiny models of the tests have such heads.
#include "ops/attention/attention_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kThreads = 128;

/// The largest value, or the sum, of a block; every thread gets it.
template <class Fold>
__device__ float fold_block(float x, Fold fold) {
  __shared__ float of_warps[kThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x = fold(x, __shfl_xor_sync(0xFFFFFFFF, x, lane));
  __syncthreads();
  of_warps[warp_id()] = x;
  __syncthreads();
  x = of_warps[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) x = fold(x, of_warps[i]);
  return x;
}

/// A block has one row of one head. Keys come in tiles of kThreads: a thread has a key for the scores, then up to two
/// elements of y.
__global__ void __launch_bounds__(kThreads) attend(const __grid_constant__ AttentionOperands a) {
  __shared__ float q[kFastSize], weights[kThreads];
  wait_for_predecessor();
  let_successor_start();
  const int row = blockIdx.x, head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), thread = threadIdx.x;
  const Sequence sequence = sequence_of_row(a, row);
  if (sequence.slot < 0) return;
  const int position = sequence.position + row - sequence.begin;
  const int64_t at = (static_cast<int64_t>(row) * a.heads + head) * a.size, stride = int64_t{a.kv_heads} * a.size;
  const bf16 *const keys = a.keys + cache_at(a, sequence.slot, 0, kv_head), *const values =
                                                                                a.values +
                                                                                cache_at(a, sequence.slot, 0, kv_head);
  for (int i = thread; i < a.size; i += kThreads) q[i] = __bfloat162float(a.q[at + i]);

  float maximum = -INFINITY, sum = 0, y[2] = {};
  for (int first = 0; first <= position; first += kThreads) {
    __syncthreads();
    float score = -INFINITY;
    if (first + thread <= position) {
      score = 0;
      for (int i = 0; i < a.size; ++i) {
        score = fmaf(q[i], __bfloat162float(keys[(first + thread) * stride + i]), score);
      }
      score *= a.score_scale;
    }
    const float larger = fmaxf(maximum, fold_block(score, [](float x, float z) { return fmaxf(x, z); }));
    const float weight = __bfloat162float(__float2bfloat16_rn(exp2_fast(score - larger)));
    const float keep = exp2_fast(maximum - larger);
    weights[thread] = weight;
    sum = fmaf(sum, keep, fold_block(weight, [](float x, float z) { return x + z; }));
    maximum = larger;
    const int count = min(kThreads, position + 1 - first);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int i = thread + part * kThreads;
      if (i >= a.size) break;
      y[part] *= keep;
      for (int j = 0; j < count; ++j) {
        y[part] = fmaf(weights[j], __bfloat162float(values[(first + j) * stride + i]), y[part]);
      }
    }
  }
  const bf16* const gate = a.q_gate + (static_cast<int64_t>(row) * a.heads + head) * a.q_stride + a.size;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int i = thread + part * kThreads;
    if (i >= a.size) break;
    const float factor = a.q_stride > a.size ? logistic(__bfloat162float(gate[i])) : 1.0f;
    a.y[at + i] = __float2bfloat16_rn(y[part] / sum * factor);
  }
}

}  // namespace

void attention_any_size(Context& cx, const AttentionOperands& a, int64_t rows) {
  launch(cx, "gated_attention", attend, dim3(static_cast<unsigned>(rows), a.heads), kThreads, 0, a);
}

}  // namespace nibble::ops

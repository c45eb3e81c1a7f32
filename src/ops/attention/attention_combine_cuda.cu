// y of rows whose keys were split: the parts are added in one order, which depends on their number alone.
#include "ops/attention/attention_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kD = kFastSize, kThreads = 128;
constexpr int kColumns = 64, kColumnThreads = kColumns / 4, kGroups = kThreads / kColumnThreads;

/// The fold of a block's values; every thread gets it.
template <class Fold>
__device__ float fold_block(float x, float* of_warps, Fold fold) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x = fold(x, __shfl_xor_sync(0xFFFFFFFF, x, lane));
  if (lane_id() == 0) of_warps[warp_id()] = x;
  __syncthreads();
  x = of_warps[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) x = fold(x, of_warps[i]);
  return x;
}

/// A block has kColumns elements of one head of one row: 16 threads side by side, in 8 groups that share the parts.
template <bool kShort>
__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ AttentionOperands a) {
  extern __shared__ float factors[];  // [parts.count]
  __shared__ float largest_of_warps[kThreads / 32], sum_of_warps[kThreads / 32];
  __shared__ float4 of_groups[kGroups][kColumnThreads];
  const Partials& parts = kShort ? a.pieces : a.splits;
  const int thread = threadIdx.x, group = thread / kColumnThreads, head = blockIdx.y;
  const int column = blockIdx.z * kColumns + thread % kColumnThreads * 4;
  Sequence s;
  int local, count = parts.count;  // row of the sequence, and its parts
  if (kShort) {
    s = sequence_at(a, blockIdx.x / a.row_bound);
    local = blockIdx.x % a.row_bound;
    count = min((s.position + local) / static_cast<int>(kKeyPiece) + 1, count);
  } else {
    s = sequence_of_row(a, blockIdx.x);
    local = blockIdx.x - s.begin;
  }
  const bool some = s.slot >= 0 && (s.rows <= kShortRows) == kShort && local < s.rows;
  const int64_t from = (static_cast<int64_t>(blockIdx.x) * a.heads + head) * parts.count;
  const int64_t head_row = (static_cast<int64_t>(s.begin) + local) * a.heads + head;
  const bool gated = a.q_stride > kD;
  // The kernels before let the next one start when all before them is done: the batch's numbers and the gate are there.
  uint2 gate{};
  if (some && gated && group == 0) {
    gate = *reinterpret_cast<const uint2*>(a.q_gate + head_row * a.q_stride + kD + column);
  }
  wait_for_predecessor();
  let_successor_start();
  if (!some) return;

  float maximum = -INFINITY;
  for (int i = thread; i < count; i += kThreads) maximum = fmaxf(maximum, parts.scale[from + i].x);
  maximum = fold_block(maximum, largest_of_warps, [](float x, float z) { return fmaxf(x, z); });
  float sum = 0;
  for (int i = thread; i < count; i += kThreads) {
    const float2 scale = parts.scale[from + i];
    const float factor = exp2_fast(scale.x - maximum);
    factors[i] = factor;
    sum = fmaf(factor, scale.y, sum);
  }
  sum = fold_block(sum, sum_of_warps, [](float x, float z) { return x + z; });

  float4 y{};
#pragma unroll 8
  for (int i = group; i < count; i += kGroups) {
    const float factor = factors[i];
    if (!kShort && factor == 0) continue;  // keys beyond the row, of which nothing may have been written
    const float4 x = *reinterpret_cast<const float4*>(parts.y + (from + i) * kD + column);
    y.x = fmaf(factor, x.x, y.x);
    y.y = fmaf(factor, x.y, y.y);
    y.z = fmaf(factor, x.z, y.z);
    y.w = fmaf(factor, x.w, y.w);
  }
  of_groups[group][thread % kColumnThreads] = y;
  __syncthreads();
  if (group != 0) return;
#pragma unroll
  for (int i = 1; i < kGroups; ++i) {
    const float4 x = of_groups[i][thread];
    y.x += x.x;
    y.y += x.y;
    y.z += x.z;
    y.w += x.w;
  }
  const float inverse = 1.0f / sum;
  const auto weigh = [&](float x, float z) { return x * inverse * (gated ? logistic(z) : 1.0f); };
  const uint2 packed{pack_bf16(weigh(y.x, low_bf16(gate.x)), weigh(y.y, high_bf16(gate.x))),
                     pack_bf16(weigh(y.z, low_bf16(gate.y)), weigh(y.w, high_bf16(gate.y)))};
  *reinterpret_cast<uint2*>(a.y + head_row * kD + column) = packed;
}

}  // namespace

void attention_add_pieces(Context& cx, const AttentionOperands& a) {
  launch(cx, "gated_attention: combine", combine<true>,
         dim3(static_cast<unsigned>(a.sequences * a.row_bound), a.heads, kD / kColumns), kThreads,
         static_cast<size_t>(a.pieces.count) * sizeof(float), a);
}

void attention_add_splits(Context& cx, const AttentionOperands& a, int64_t rows) {
  launch(cx, "gated_attention: combine", combine<false>, dim3(static_cast<unsigned>(rows), a.heads, kD / kColumns),
         kThreads, static_cast<size_t>(a.splits.count) * sizeof(float), a);
}

}  // namespace nibble::ops

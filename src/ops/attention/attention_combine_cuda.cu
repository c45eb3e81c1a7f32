// y of rows whose keys were split: the parts are added in one order, which depends on their number alone.
#include "ops/attention/attention_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kD = kFastSize, kThreads = 128;
constexpr int kColumns = 64, kColumnThreads = kColumns / 4, kGroups = kThreads / kColumnThreads;
constexpr int kAtOnce = 32 / kGroups;  // parts of a group per round

__device__ float warp_max(float x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, lane));
  return x;
}

/// A block has kColumns elements of one head of one row: 16 threads side by side, in 8 groups that share the parts. A
/// warp goes through the scales of all parts, 32 at a time, a part per lane.
template <bool kShort>
__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ AttentionOperands a) {
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

  const int lane = lane_id();
  const auto scale_of = [&](int part) { return part < count ? parts.scale[from + part] : make_float2(-INFINITY, 0); };
  const auto load = [&](float4(&x)[kAtOnce], int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int part = first + i * kGroups + group;
      x[i] = part < count ? *reinterpret_cast<const float4*>(parts.y + (from + part) * kD + column) : float4{};
    }
  };
  float4 x[kAtOnce], y{};
  load(x, 0);
  float maximum = scale_of(lane).x;
#pragma unroll 4
  for (int part = 32 + lane; part < count; part += 32) maximum = fmaxf(maximum, parts.scale[from + part].x);
  maximum = warp_max(maximum);
  float sum = 0;
  for (int first = 0; first < count; first += 32) {
    float4 next[kAtOnce];
    load(next, first + 32);
    const float2 scale = scale_of(first + lane);
    const float factor = exp2_fast(scale.x - maximum);
    sum = fmaf(factor, scale.y, sum);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float f = __shfl_sync(0xFFFFFFFF, factor, i * kGroups + group);
      if (kShort || f != 0) {  // else keys beyond the row, of which nothing may have been written
        y.x = fmaf(f, x[i].x, y.x);
        y.y = fmaf(f, x[i].y, y.y);
        y.z = fmaf(f, x[i].z, y.z);
        y.w = fmaf(f, x[i].w, y.w);
      }
      x[i] = next[i];
    }
  }
  sum = warp_sum(sum);
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
         dim3(static_cast<unsigned>(a.sequences * a.row_bound), a.heads, kD / kColumns), kThreads, 0, a);
}

void attention_add_splits(Context& cx, const AttentionOperands& a, int64_t rows) {
  launch(cx, "gated_attention: combine", combine<false>, dim3(static_cast<unsigned>(rows), a.heads, kD / kColumns),
         kThreads, 0, a);
}

}  // namespace nibble::ops

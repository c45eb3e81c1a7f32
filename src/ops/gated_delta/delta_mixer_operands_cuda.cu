// First of a window of chunks: what the chunked form reads, from the rows of mix.
#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"
#include "ops/gated_delta/gates.h"

namespace nibble::ops::delta {
namespace {

/// q, k, v of the convolution, normed, as tiles; G and beta. grid (2 Hk + Hv, window), 4 warps of 16 rows; a lane has 4
/// channels.
__global__ void __launch_bounds__(128) chunk_operands(DeltaMixerArgs m, Tiles tiles, int window) {
  const int unit = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = unit * kSize + lane * 4;
  const Chunk chunk = chunk_at(m, window + blockIdx.y);
  wait_for_predecessor();
  let_successor_start();
  if (chunk.sequence < 0) return;

  constexpr int kEach = kRows / 4;
  const int row0 = chunk.number * kRows + warp * kEach;  // in the sequence
  uint2 mix[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    mix[i] = {0, 0};
    if (row0 + i < chunk.rows) {
      mix[i] =
          *reinterpret_cast<const uint2*>(m.mix + static_cast<int64_t>(chunk.first + row0 + i) * m.channels + channel);
    }
  }
  float past[3][4];
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    const int row = row0 - 3 + j;
    float4 x = {0, 0, 0, 0};
    if (row >= 0 && row < chunk.rows) {
      const uint2 raw =
          *reinterpret_cast<const uint2*>(m.mix + static_cast<int64_t>(chunk.first + row) * m.channels + channel);
      x = {f32_from_bits(raw.x << 16), f32_from_bits(raw.x & 0xFFFF0000), f32_from_bits(raw.y << 16),
           f32_from_bits(raw.y & 0xFFFF0000)};
    } else if (row < 0 && !chunk.fresh) {
      x = *reinterpret_cast<const float4*>(m.conv_state +
                                           (static_cast<int64_t>(chunk.slot) * 3 + row + 3) * m.channels + channel);
    }
    past[j][0] = x.x, past[j][1] = x.y, past[j][2] = x.z, past[j][3] = x.w;
  }
  float4 tap[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) tap[c] = *reinterpret_cast<const float4*>(m.conv + 4 * (channel + c));

  const bool is_key = unit < 2 * m.key_heads;
  const int head = unit < m.key_heads ? unit : is_key ? unit - m.key_heads : unit - 2 * m.key_heads;
  uint16_t* const tile = is_key ? (unit < m.key_heads ? tiles.q : tiles.k) +
                                      (static_cast<int64_t>(blockIdx.y) * m.key_heads + head) * kDeltaRowTile
                                : tiles.vw + (static_cast<int64_t>(blockIdx.y) * m.heads + head) * kDeltaRowTile;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const float x[4] = {f32_from_bits(mix[i].x << 16), f32_from_bits(mix[i].x & 0xFFFF0000),
                        f32_from_bits(mix[i].y << 16), f32_from_bits(mix[i].y & 0xFFFF0000)};
    float y[4], squares = 0;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float pre =
          fmaf(tap[c].w, x[c], fmaf(tap[c].z, past[2][c], fmaf(tap[c].y, past[1][c], tap[c].x * past[0][c])));
      past[0][c] = past[1][c], past[1][c] = past[2][c], past[2][c] = x[c];
      y[c] = row0 + i < chunk.rows ? quick_logistic(pre, pre) : 0;
      squares = fmaf(y[c], y[c], squares);
    }
    float scale = 1;
    if (is_key) scale = (unit < m.key_heads ? m.scale : 1.0f) * rsqrtf(warp_sum(squares) + m.l2_eps);
    *reinterpret_cast<uint2*>(tile + (warp * kEach + i) * kStride + lane * 4) = {pack_bf16(y[0] * scale, y[1] * scale),
                                                                                 pack_bf16(y[2] * scale, y[3] * scale)};
  }
  if (is_key) return;

  __shared__ float lower;
  const int row = threadIdx.x;
  float g = 0, beta = 0;
  if (row < chunk.filled()) {
    const int64_t at = static_cast<int64_t>(chunk.first + chunk.number * kRows + row) * m.heads + head;
    g = delta_decay(m.a[at], m.a_log[head], m.dt_bias[head]);
    beta = delta_strength(m.b[at]);
  }
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float below = __shfl_up_sync(0xFFFFFFFF, g, step);
    if (lane >= step) g += below;
  }
  if (row == 31) lower = g;
  __syncthreads();
  if (row < kRows) {
    const int64_t at = (static_cast<int64_t>(blockIdx.y) * m.heads + head) * kRows + row;
    tiles.sum[at] = warp == 1 ? g + lower : g;
    tiles.beta[at] = beta;
  }
}

}  // namespace

void queue_operands(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks) {
  launch(cx, "delta_mixer", chunk_operands,
         dim3(static_cast<unsigned>(2 * m.key_heads + m.heads), static_cast<unsigned>(chunks)), dim3(128), 0, m, tiles,
         window);
}

}  // namespace nibble::ops::delta

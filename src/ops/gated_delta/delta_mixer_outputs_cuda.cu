// Last: y of all rows of the window.
#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"

namespace nibble::ops::delta {
namespace {

struct OutputShared {
  uint16_t q[kDeltaRowTile], k[kDeltaRowTile], d[kDeltaColumnTile], state[kDeltaStateTile];
  float sum[kRows];
  uint64_t barrier;
};
static_assert(kStateTileBytes == sizeof(float) * kRows * kStride);  // the rows of y take the place of the state

/// y of a chunk, and the convolution's last rows of a sequence that ends with it. grid (Hv, window), 4 warps of 16
/// rows.
__global__ void __launch_bounds__(128) chunk_outputs(DeltaMixerArgs m, Tiles tiles, int window) {
  if constexpr (!hopper::kSm90) return;
  extern __shared__ float4 shared_memory[];
  OutputShared& s = *reinterpret_cast<OutputShared*>(shared_memory);
  const int head = blockIdx.x, tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, pair = lane % 4 * 2;
  const Chunk chunk = chunk_at(m, window + blockIdx.y);
  const int64_t at = static_cast<int64_t>(blockIdx.y) * m.heads + head;
  const int ratio = m.heads / m.key_heads;
  const int64_t key_at = static_cast<int64_t>(blockIdx.y) * m.key_heads + head / ratio;
  if (tid == 0) {
    hopper::barrier_init(&s.barrier, 1);
    hopper::barrier_fence();
  }
  __syncthreads();
  wait_for_predecessor();
  let_successor_start();
  if (chunk.sequence < 0) return;
  if (tid == 0) {
    hopper::barrier_expect(&s.barrier, 2 * kRowTileBytes + kColumnTileBytes + kStateTileBytes);
    hopper::bulk_copy(s.q, tiles.q + key_at * kDeltaRowTile, kRowTileBytes, &s.barrier);
    hopper::bulk_copy(s.k, tiles.k + key_at * kDeltaRowTile, kRowTileBytes, &s.barrier);
    hopper::bulk_copy(s.state, tiles.state + at * kDeltaStateTile, kStateTileBytes, &s.barrier);
    hopper::bulk_copy(s.d, tiles.ud + at * kDeltaColumnTile, kColumnTileBytes, &s.barrier);
  }
  if (tid < kRows) s.sum[tid] = tiles.sum[at * kRows + tid];
  if (chunk.last()) {
    const auto keep = [&](int channel) {
      for (int j = 0; j < 3; ++j) {
        m.conv_state[(static_cast<int64_t>(chunk.slot) * 3 + j) * m.channels + channel] =
            bf16_to_f32(m.mix[static_cast<int64_t>(chunk.first + chunk.rows - 3 + j) * m.channels + channel]);
      }
    };
    keep((2 * m.key_heads + head) * kSize + tid);
    if (head % ratio == 0) {
      keep(head / ratio * kSize + tid);
      keep((m.key_heads + head / ratio) * kSize + tid);
    }
  }
  // For the end, where 16 lanes of 8 columns make a row.
  const int c = lane % 16 * 8;
  const int64_t row0 = chunk.first + chunk.number * kRows + warp * 16 + lane / 16;
  uint4 z[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    z[i] = {0, 0, 0, 0};
    if (warp * 16 + lane / 16 + i * 2 < chunk.filled()) {
      z[i] = *reinterpret_cast<const uint4*>(m.z + ((row0 + i * 2) * m.heads + head) * kSize + c);
    }
  }
  __syncthreads();
  hopper::barrier_wait(&s.barrier, 0);

  const float sum[2] = {s.sum[warp * 16 + g], s.sum[warp * 16 + g + 8]};
  uint32_t q[8][4];
#pragma unroll
  for (int step = 0; step < 8; ++step) load_a(s.q, kStride, warp * 16, step * 16, q[step]);
  uint32_t weight[4][4];  // exp(G_i - G_j) <q_i,k_j>
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    if (n > warp) break;
    float qk[2][4] = {};
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      uint32_t b[2][2];
      load_b(s.k, kStride, n * 16, step * 16, b);
      mma_bf16(qk[0], q[step], b[0]);
      mma_bf16(qk[1], q[step], b[1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = warp * 16 + g + e / 2 * 8, j = n * 16 + half * 8 + pair + e % 2;
        qk[half][e] = j <= i ? qk[half][e] * __expf(sum[e / 2] - s.sum[j]) : 0;
      }
    }
    sums_as_a(qk[0], qk[1], weight[n]);
  }

  float y[16][4] = {};
#pragma unroll
  for (int step = 0; step < 8; ++step) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      uint32_t b[2][2];
      load_b(s.state, kStride, n * 16, step * 16, b);
      mma_bf16(y[2 * n], q[step], b[0]);
      mma_bf16(y[2 * n + 1], q[step], b[1]);
    }
  }
  const float decay[2] = {__expf(sum[0]), __expf(sum[1])};
#pragma unroll
  for (int n = 0; n < 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) y[n][e] *= decay[e / 2];
  }
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    if (step > warp) break;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      uint32_t b[2][2];
      load_b(s.d, kColumnStride, n * 16, step * 16, b);
      mma_bf16(y[2 * n], weight[step], b[0]);
      mma_bf16(y[2 * n + 1], weight[step], b[1]);
    }
  }

  float squares[2] = {};
#pragma unroll
  for (int n = 0; n < 16; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) squares[e / 2] = fmaf(y[n][e], y[n][e], squares[e / 2]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    squares[half] += __shfl_xor_sync(0xFFFFFFFF, squares[half], 1);
    squares[half] += __shfl_xor_sync(0xFFFFFFFF, squares[half], 2);
    squares[half] = rsqrtf(squares[half] / kSize + m.norm_eps);
  }
  __syncthreads();  // the state has been read
  float* const rows = reinterpret_cast<float*>(s.state) + warp * 16 * kStride;
#pragma unroll
  for (int n = 0; n < 16; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<float2*>(&rows[(g + half * 8) * kStride + n * 8 + pair]) = {y[n][2 * half] * squares[half],
                                                                                    y[n][2 * half + 1] * squares[half]};
    }
  }
  __syncwarp();
  float w[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) w[j] = m.norm[c + j];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int row = i * 2 + lane / 16;
    if (warp * 16 + row >= chunk.filled()) continue;
    const uint32_t raw[4] = {z[i].x, z[i].y, z[i].z, z[i].w};
    uint32_t out[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 x = *reinterpret_cast<const float2*>(&rows[row * kStride + c + 2 * j]);
      const float left = gate_of(f32_from_bits(raw[j] << 16), m.gate);
      const float right = gate_of(f32_from_bits(raw[j] & 0xFFFF0000), m.gate);
      out[j] = pack_bf16(x.x * w[2 * j] * left, x.y * w[2 * j + 1] * right);
    }
    *reinterpret_cast<uint4*>(m.y + ((row0 + i * 2) * m.heads + head) * kSize + c) = {out[0], out[1], out[2], out[3]};
  }
}

}  // namespace

void queue_outputs(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks) {
  launch(cx, "delta_mixer", chunk_outputs, dim3(static_cast<unsigned>(m.heads), static_cast<unsigned>(chunks)),
         dim3(128), sizeof(OutputShared), m, tiles, window);
}

}  // namespace nibble::ops::delta

// Third: the states before the chunks and what their rows write, one chunk after the other.
#include <algorithm>

#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"

namespace nibble::ops::delta {
namespace {

constexpr int kSliceColumns = 32;  // columns of S of one block of chunk_states, 16 for each two warps
struct StateStage {
  uint16_t w[kDeltaRowTile], k[kDeltaRowTile], u[kSliceColumns * kColumnStride];
  float sum[kRows];
  uint64_t barrier, unused;
};
struct StateShared {
  float4 partial[4][8][32];  // of W S: [warp], 32 sums of each lane
  StateStage stage[];
};
constexpr uint32_t kSliceBytes = 2 * kSliceColumns * kColumnStride;

/// The chunks of one sequence in this window, one after the other; D' and the state before each chunk. The transposed
/// state lies in registers as sums of products, which rounded to BF16 are at once operands of the next product. Two
/// warps share 16 columns: each has half of the Dk rows, and adds the other's half of the sum W S to its own.
/// grid (128 / kSliceColumns, Hv, runs), 4 warps.
__global__ void __launch_bounds__(128)
    chunk_states(DeltaMixerArgs m, Tiles tiles, int window, int window_size, int stages) {
  extern __shared__ float4 shared_memory[];
  StateShared& shared = *reinterpret_cast<StateShared*>(shared_memory);
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, pair = lane % 4 * 2;
  const int head = blockIdx.y, half = warp % 2, local = warp / 2 * 16 + g, column = blockIdx.x * kSliceColumns + local;

  // The run that this block follows: of the sequences with chunks in this window, the blockIdx.z-th.
  int before = 0, seen = 0, first = 0, count = 0, sequence = -1;
  for (int i = 0; i < m.sequences && sequence < 0; ++i) {
    const int chunks = chunks_of(m, i);
    const int from = max(before, window), to = min(before + chunks, window + window_size);
    if (from < to && seen++ == blockIdx.z) sequence = i, first = from - before, count = to - from;
    if (sequence < 0) before += chunks;
  }
  if (tid == 0) {
    for (int i = 0; i < stages; ++i) begin_barrier(&shared.stage[i].barrier);
  }
  __syncthreads();
  let_successor_start();
  wait_for_predecessor();
  if (sequence < 0) return;
  const Chunk chunk = chunk_in(m, sequence, first);
  const int place0 = before + first - window;  // of the first chunk in the window

  const auto fetch = [&](int i) {
    StateStage& s = shared.stage[i % stages];
    const int64_t at = static_cast<int64_t>(place0 + i) * m.heads + head;
    const int64_t key_at = static_cast<int64_t>(place0 + i) * m.key_heads + head / (m.heads / m.key_heads);
    expect_bytes(&s.barrier, 2 * kRowTileBytes + kSliceBytes + kRows * 4);
    copy_tile(s.w, tiles.vw + at * kDeltaRowTile, kRowTileBytes, &s.barrier);
    copy_tile(s.u, tiles.ud + at * kDeltaColumnTile + blockIdx.x * kSliceColumns * kColumnStride, kSliceBytes,
              &s.barrier);
    copy_tile(s.sum, tiles.sum + at * kRows, kRows * 4, &s.barrier);
    copy_tile(s.k, tiles.k + key_at * kDeltaRowTile, kRowTileBytes, &s.barrier);
  };
  if (tid == 0) {
    for (int i = 0; i < min(stages - 1, count); ++i) fetch(i);
  }

  // S'[column, key] = S[key, column], 64 keys from here on
  const int key = half * 64;
  float* const state =
      m.S + ((static_cast<int64_t>(chunk.slot) * m.heads + head) * kSize + key + pair) * kSize + column;
  const bool zero = chunk.fresh && first == 0;
  float S[8][4];
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) S[n][e] = zero ? 0 : state[(n * 8 + e % 2) * kSize + e / 2 * 8];
  }

  for (int i = 0; i < count; ++i) {
    StateStage& s = shared.stage[i % stages];
    const int64_t at = static_cast<int64_t>(place0 + i) * m.heads + head;
    __syncthreads();  // what the next copy and sums overwrite has been read
    if (tid == 0 && i + stages - 1 < count) fetch(i + stages - 1);

    uint32_t rounded[4][4];
    uint16_t* const keep = tiles.state + at * kDeltaStateTile + column * kStride + key + pair;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      sums_as_a(S[2 * n], S[2 * n + 1], rounded[n]);
      *reinterpret_cast<uint32_t*>(keep + n * 16) = rounded[n][0];
      *reinterpret_cast<uint32_t*>(keep + n * 16 + 8 * kStride) = rounded[n][1];
      *reinterpret_cast<uint32_t*>(keep + n * 16 + 8) = rounded[n][2];
      *reinterpret_cast<uint32_t*>(keep + n * 16 + 8 * kStride + 8) = rounded[n][3];
    }
    wait_barrier(&s.barrier, i / stages % 2);

    float d[8][4] = {};  // D'[column, row]
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[2][2];
        load_b(s.w, kStride, n * 16, key + step * 16, b);
        mma_bf16(d[2 * n], rounded[step], b[0]);
        mma_bf16(d[2 * n + 1], rounded[step], b[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) shared.partial[warp][n][lane] = {d[n][0], d[n][1], d[n][2], d[n][3]};
    __syncthreads();
    const float total = s.sum[kRows - 1];
    uint16_t* const out = tiles.ud + at * kDeltaColumnTile + column * kColumnStride + pair;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float4 other = shared.partial[warp ^ 1][n][lane];
      const float with[4] = {other.x, other.y, other.z, other.w};
      const float2 sum = *reinterpret_cast<const float2*>(&s.sum[n * 8 + pair]);
      const float left = __expf(total - sum.x), right = __expf(total - sum.y);
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const uint32_t u = *reinterpret_cast<const uint32_t*>(&s.u[(local + below * 8) * kColumnStride + n * 8 + pair]);
        float& x = d[n][2 * below];
        float& y = d[n][2 * below + 1];
        x = f32_from_bits(u << 16) - (x + with[2 * below]);
        y = f32_from_bits(u & 0xFFFF0000) - (y + with[2 * below + 1]);
        if (n / 4 == half) *reinterpret_cast<uint32_t*>(out + n * 8 + below * 8 * kColumnStride) = pack_bf16(x, y);
        x *= left, y *= right;
      }
    }
    const float decay = __expf(total);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) S[n][e] *= decay;
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t a[4];
      sums_as_a(d[2 * step], d[2 * step + 1], a);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[2][2];
        load_b_transposed(s.k, kStride, step * 16, key + n * 16, b);
        mma_bf16(S[2 * n], a, b[0]);
        mma_bf16(S[2 * n + 1], a, b[1]);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) state[(n * 8 + e % 2) * kSize + e / 2 * 8] = S[n][e];
  }
}

}  // namespace

void queue_states(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks) {
  int limit = 0;
  cx.stream->note(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, cx.device.index),
                  "delta_mixer");
  const int stages = limit >= static_cast<int>(sizeof(StateShared) + 3 * sizeof(StateStage)) ? 3 : 2;
  const dim3 grid(kSize / kSliceColumns, static_cast<unsigned>(m.heads),
                  static_cast<unsigned>(std::min(chunks, m.sequences)));
  launch(cx, "delta_mixer", chunk_states, grid, dim3(128),
         sizeof(StateShared) + static_cast<size_t>(stages) * sizeof(StateStage), m, tiles, window, chunks, stages);
}

}  // namespace nibble::ops::delta

// Third: the states before the chunks and what their rows write, one chunk after the other.
#include <algorithm>

#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"

namespace nibble::ops::delta {
namespace {

/// Of blocks with kColumns columns of S, 16 for each two warps.
template <int kColumns>
struct StateStage {
  uint16_t w[kDeltaRowTile], k[kDeltaRowTile], u[kColumns * kColumnStride];
  float sum[kRows];
  uint64_t barrier, unused;
};
template <int kColumns>
struct StateShared {
  float4 partial[kColumns / 8][8][32];  // of W S: [warp], 32 sums of each lane
  StateStage<kColumns> stage[];
};

/// Of a row's 16 columns a thread has two words, columns 2p, 2p+1 and 8+2p, 9+2p with p = lane % 4. It stores two words
/// that stand side by side, so that a row's four threads fill 32 bytes.
__device__ inline void store_row(uint16_t* row, uint32_t left, uint32_t right) {
  const int p = threadIdx.x % 4;
  const bool odd = p % 2 == 1;
  const uint32_t other = __shfl_xor_sync(0xFFFFFFFF, odd ? left : right, 1);
  *reinterpret_cast<uint2*>(row + (odd ? 8 : 0) + p / 2 * 4) = odd ? uint2{other, right} : uint2{left, other};
}

/// The chunks of one sequence in this window, one after the other; D' and the state before each chunk. The transposed
/// state lies in registers as sums of products, which rounded to BF16 are at once operands of the next product. Two
/// warps share 16 columns: each has half of the Dk rows, and adds the other's half of the sum W S to its own.
/// grid (128 / kColumns, Hv, runs), kColumns / 8 warps. Wide slices read W and K the fewest times.
template <int kColumns>
__global__ void __launch_bounds__(4 * kColumns)
    chunk_states(DeltaMixerArgs m, Tiles tiles, int window, int window_size, int stages) {
  if constexpr (!hopper::kSm90) return;
  extern __shared__ float4 shared_memory[];
  constexpr uint32_t kSliceBytes = 2 * kColumns * kColumnStride;
  StateShared<kColumns>& shared = *reinterpret_cast<StateShared<kColumns>*>(shared_memory);
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, pair = lane % 4 * 2;
  const int head = blockIdx.y, half = warp % 2, local = warp / 2 * 16 + g, column = blockIdx.x * kColumns + local;

  // The run that this block follows: of the sequences with chunks in this window, the blockIdx.z-th.
  int before = 0, seen = 0, first = 0, count = 0, sequence = -1;
  for (int i = 0; i < m.sequences && sequence < 0; ++i) {
    const int chunks = chunks_of(m, i);
    const int from = max(before, window), to = min(before + chunks, window + window_size);
    if (from < to && seen++ == blockIdx.z) sequence = i, first = from - before, count = to - from;
    if (sequence < 0) before += chunks;
  }
  if (tid == 0) {
    for (int i = 0; i < stages; ++i) hopper::barrier_init(&shared.stage[i].barrier, 1);
    hopper::barrier_fence();
  }
  __syncthreads();
  wait_for_predecessor();
  let_successor_start();
  if (sequence < 0) return;
  const Chunk chunk = chunk_in(m, sequence, first);
  const int place0 = before + first - window;  // of the first chunk in the window

  const auto fetch = [&](int i) {
    StateStage<kColumns>& s = shared.stage[i % stages];
    const int64_t at = static_cast<int64_t>(place0 + i) * m.heads + head;
    const int64_t key_at = static_cast<int64_t>(place0 + i) * m.key_heads + head / (m.heads / m.key_heads);
    hopper::barrier_expect(&s.barrier, 2 * kRowTileBytes + kSliceBytes + kRows * 4);
    hopper::bulk_copy(s.w, tiles.vw + at * kDeltaRowTile, kRowTileBytes, &s.barrier);
    hopper::bulk_copy(s.u, tiles.ud + at * kDeltaColumnTile + blockIdx.x * kColumns * kColumnStride, kSliceBytes,
                      &s.barrier);
    hopper::bulk_copy(s.sum, tiles.sum + at * kRows, kRows * 4, &s.barrier);
    hopper::bulk_copy(s.k, tiles.k + key_at * kDeltaRowTile, kRowTileBytes, &s.barrier);
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
    StateStage<kColumns>& s = shared.stage[i % stages];
    const int64_t at = static_cast<int64_t>(place0 + i) * m.heads + head;
    __syncthreads();  // what the next copy and sums overwrite has been read
    if (tid == 0 && i + stages - 1 < count) fetch(i + stages - 1);

    uint32_t rounded[4][4];
    uint16_t* const keep = tiles.state + at * kDeltaStateTile + column * kStride + key;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      sums_as_a(S[2 * n], S[2 * n + 1], rounded[n]);
      store_row(keep + n * 16, rounded[n][0], rounded[n][2]);
      store_row(keep + n * 16 + 8 * kStride, rounded[n][1], rounded[n][3]);
    }
    hopper::barrier_wait(&s.barrier, i / stages % 2);

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
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float4 other = shared.partial[warp ^ 1][n][lane];
      const float with[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const uint32_t u = *reinterpret_cast<const uint32_t*>(&s.u[(local + below * 8) * kColumnStride + n * 8 + pair]);
        float& x = d[n][2 * below];
        float& y = d[n][2 * below + 1];
        x = f32_from_bits(u << 16) - (x + with[2 * below]);
        y = f32_from_bits(u & 0xFFFF0000) - (y + with[2 * below + 1]);
      }
    }
    uint16_t* const out = tiles.ud + at * kDeltaColumnTile + column * kColumnStride;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      if (n / 2 == half) {  // both warps have D'
        uint32_t a[4];
        sums_as_a(d[2 * n], d[2 * n + 1], a);
        store_row(out + n * 16, a[0], a[2]);
        store_row(out + n * 16 + 8 * kColumnStride, a[1], a[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 sum = *reinterpret_cast<const float2*>(&s.sum[n * 8 + pair]);
      const float left = __expf(total - sum.x), right = __expf(total - sum.y);
      d[n][0] *= left, d[n][1] *= right, d[n][2] *= left, d[n][3] *= right;
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

template <int kColumns>
void queue_slices(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks, int stages) {
  const dim3 grid(kSize / kColumns, static_cast<unsigned>(m.heads),
                  static_cast<unsigned>(std::min(chunks, m.sequences)));
  const size_t shared = sizeof(StateShared<kColumns>) + static_cast<size_t>(stages) * sizeof(StateStage<kColumns>);
  launch(cx, "delta_mixer", chunk_states<kColumns>, grid, dim3(4 * kColumns), shared, m, tiles, window, chunks, stages);
}

}  // namespace

void queue_states(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks) {
  int limit = 0;
  cx.stream->note(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, cx.device.index),
                  "delta_mixer");
  if (limit >= static_cast<int>(sizeof(StateShared<64>) + 3 * sizeof(StateStage<64>))) {
    queue_slices<64>(cx, m, tiles, window, chunks, 3);
  } else {
    queue_slices<32>(cx, m, tiles, window, chunks, 2);
  }
}

}  // namespace nibble::ops::delta

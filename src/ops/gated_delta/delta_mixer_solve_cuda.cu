// Second: T = (I + A)^-1 of each chunk, and with it W and U.
#include "ops/gated_delta/delta_mixer_chunk_cuda.cuh"

namespace nibble::ops::delta {
namespace {

// A' and T in f32: rows of A' are read 4 at a time, pairs of T by 4 rows at a time.
constexpr int kAStride = kRows + 4, kTStride = kRows + 8;
static_assert(sizeof(float) * kRows * kAStride == kRowTileBytes);     // W's rows take the place of A'
static_assert(sizeof(float) * kRows * kTStride == kColumnTileBytes);  // U' that of T
struct SolveShared {
  uint16_t k[kDeltaRowTile], v[kDeltaRowTile];
  float a[kRows * kAStride];                     // A'[j,i]
  float t[kRows * kTStride];                     // T[i,j]
  float sum[kRows], beta[kRows], weight[kRows];  // G, beta, beta exp(G)
  uint64_t barrier;
};

/// The inverse of the diagonal block of I + A that begins at row 16 * block, by substitution: a lane below 16 has a
/// column. The others write zeros to the right of an even block, which join_blocks reads.
__device__ inline void invert_block(SolveShared& s, int block) {
  const int c = threadIdx.x % 16, at = block * 16;
  float x[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) x[i] = i == c ? 1 : 0;
#pragma unroll
  for (int j = 0; j < 15; ++j) {
    float a[16];
#pragma unroll
    for (int i = j / 4 * 4; i < 16; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(&s.a[(at + j) * kAStride + at + i]);
      a[i] = four.x, a[i + 1] = four.y, a[i + 2] = four.z, a[i + 3] = four.w;
    }
#pragma unroll
    for (int i = j + 1; i < 16; ++i) x[i] = fmaf(-a[i], x[j], x[i]);
  }
  const bool right = threadIdx.x % 32 >= 16;
  if (right && block % 2 == 1) return;
#pragma unroll
  for (int i = 0; i < 16; ++i) s.t[(at + i) * kTStride + at + c + (right ? 16 : 0)] = right ? 0 : x[i];
}

/// With the inverses P and R of neighbouring diagonal blocks of kN rows in place, from row `at` on, and B the block of
/// A below P, the block of T below P is -R (B P). For 4 kN threads, which have a column and kN/4 rows each. A' has no
/// meaning below its diagonal: B P stands there in between.
template <int kN>
__device__ inline void join_blocks(SolveShared& s, int at, int thread) {
  constexpr int kEach = kN / 4;
  const int c = thread % kN, row = thread / kN * kEach, below = at + kN;
  float x[kEach] = {};
#pragma unroll 8
  for (int j = 0; j < kN; ++j) {
    const float p = s.t[(at + j) * kTStride + at + c];
#pragma unroll
    for (int i = 0; i < kEach; i += 4) {
      const float4 b = *reinterpret_cast<const float4*>(&s.a[(at + j) * kAStride + below + row + i]);
      x[i] = fmaf(b.x, p, x[i]), x[i + 1] = fmaf(b.y, p, x[i + 1]);
      x[i + 2] = fmaf(b.z, p, x[i + 2]), x[i + 3] = fmaf(b.w, p, x[i + 3]);
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) s.a[(below + row + i) * kAStride + at + c] = x[i];
  __syncthreads();
  float y[kEach] = {};
#pragma unroll 2
  for (int j = 0; j < kN; j += 4) {
    float known[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) known[e] = s.a[(below + j + e) * kAStride + at + c];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float4 r = *reinterpret_cast<const float4*>(&s.t[(below + row + i) * kTStride + below + j]);
      y[i] = fmaf(-r.x, known[0], fmaf(-r.y, known[1], fmaf(-r.z, known[2], fmaf(-r.w, known[3], y[i]))));
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) s.t[(below + row + i) * kTStride + at + c] = y[i];
}

/// T[row, column], T[row, column+1] times the weights of these columns.
__device__ inline uint32_t weighted_pair(const SolveShared& s, const float* weight, int row, int column) {
  const float2 t = *reinterpret_cast<const float2*>(&s.t[row * kTStride + column]);
  const float2 w = *reinterpret_cast<const float2*>(&weight[column]);
  return pack_bf16(t.x * w.x, t.y * w.y);
}

/// W and U' of a chunk. grid (Hv, window), 4 warps: of 16 rows, for U' of 32 columns.
__global__ void __launch_bounds__(128) chunk_solve(DeltaMixerArgs m, Tiles tiles, int window) {
  if constexpr (!hopper::kSm90) return;
  extern __shared__ float4 shared_memory[];
  SolveShared& s = *reinterpret_cast<SolveShared*>(shared_memory);
  const int head = blockIdx.x, tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, pair = lane % 4 * 2;
  const Chunk chunk = chunk_at(m, window + blockIdx.y);
  const int64_t at = static_cast<int64_t>(blockIdx.y) * m.heads + head;
  const int64_t key_at = static_cast<int64_t>(blockIdx.y) * m.key_heads + head / (m.heads / m.key_heads);
  if (tid == 0) {
    hopper::barrier_init(&s.barrier, 1);
    hopper::barrier_fence();
  }
  __syncthreads();
  wait_for_predecessor();
  let_successor_start();
  if (chunk.sequence < 0) return;
  if (tid == 0) {
    hopper::barrier_expect(&s.barrier, 2 * kRowTileBytes);
    hopper::bulk_copy(s.k, tiles.k + key_at * kDeltaRowTile, kRowTileBytes, &s.barrier);
    hopper::bulk_copy(s.v, tiles.vw + at * kDeltaRowTile, kRowTileBytes, &s.barrier);
  }
  if (tid < kRows) {
    const float sum = tiles.sum[at * kRows + tid], beta = tiles.beta[at * kRows + tid];
    s.sum[tid] = sum, s.beta[tid] = beta, s.weight[tid] = beta * __expf(sum);
  }
  __syncthreads();
  hopper::barrier_wait(&s.barrier, 0);

  {
    float kk[8][4] = {};
#pragma unroll
    for (int step = 0; step < kSize; step += 16) {
      uint32_t a[4], b[2][2];
      load_a(s.k, kStride, warp * 16, step, a);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        if (n > warp) break;
        load_b(s.k, kStride, n * 16, step, b);
        mma_bf16(kk[2 * n], a, b[0]);
        mma_bf16(kk[2 * n + 1], a, b[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      if (n / 2 > warp) break;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int i = warp * 16 + g + e / 2 * 8, j = n * 8 + pair + e % 2;
        s.a[j * kAStride + i] = i > j ? s.beta[i] * __expf(s.sum[i] - s.sum[j]) * kk[n][e] : 0;
      }
    }
  }
  __syncthreads();
  invert_block(s, warp);
  __syncthreads();
  join_blocks<16>(s, warp / 2 * 32, tid % 64);
  __syncthreads();
  join_blocks<32>(s, 0, tid);
  __syncthreads();

  {
    float w[16][4] = {};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if (step > warp) break;
      const int row = warp * 16 + g, column = step * 16 + pair;
      const uint32_t a[4] = {weighted_pair(s, s.weight, row, column), weighted_pair(s, s.weight, row + 8, column),
                             weighted_pair(s, s.weight, row, column + 8),
                             weighted_pair(s, s.weight, row + 8, column + 8)};
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        uint32_t b[2][2];
        load_b_transposed(s.k, kStride, step * 16, n * 16, b);
        mma_bf16(w[2 * n], a, b[0]);
        mma_bf16(w[2 * n + 1], a, b[1]);
      }
    }
    uint16_t* const out = reinterpret_cast<uint16_t*>(s.a);
#pragma unroll
    for (int n = 0; n < 16; ++n) {
      uint16_t* const place = out + (warp * 16 + g) * kStride + n * 8 + pair;
      *reinterpret_cast<uint32_t*>(place) = pack_bf16(w[n][0], w[n][1]);
      *reinterpret_cast<uint32_t*>(place + 8 * kStride) = pack_bf16(w[n][2], w[n][3]);
    }
    __syncwarp();
    uint16_t* const to = tiles.vw + at * kDeltaRowTile;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int place = (warp * 16 + i * 2 + lane / 16) * kStride + lane % 16 * 8;
      *reinterpret_cast<uint4*>(to + place) = *reinterpret_cast<const uint4*>(out + place);
    }
  }
  {
    float u[2][8][4] = {};
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t a[2][4];
      load_a_transposed(s.v, kStride, step * 16, warp * 32, a[0]);
      load_a_transposed(s.v, kStride, step * 16, warp * 32 + 16, a[1]);
#pragma unroll
      for (int n = 2 * step; n < 8; ++n) {
        const uint32_t b[2] = {weighted_pair(s, s.beta, n * 8 + g, step * 16 + pair),
                               weighted_pair(s, s.beta, n * 8 + g, step * 16 + pair + 8)};
        mma_bf16(u[0][n], a[0], b);
        mma_bf16(u[1][n], a[1], b);
      }
    }
    __syncthreads();
    uint16_t* const out = reinterpret_cast<uint16_t*>(s.t);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        uint16_t* const place = out + (warp * 32 + half * 16 + g) * kColumnStride + n * 8 + pair;
        *reinterpret_cast<uint32_t*>(place) = pack_bf16(u[half][n][0], u[half][n][1]);
        *reinterpret_cast<uint32_t*>(place + 8 * kColumnStride) = pack_bf16(u[half][n][2], u[half][n][3]);
      }
    }
    __syncwarp();
    uint16_t* const to = tiles.ud + at * kDeltaColumnTile;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int place = (warp * 32 + i * 4 + lane / 8) * kColumnStride + lane % 8 * 8;
      *reinterpret_cast<uint4*>(to + place) = *reinterpret_cast<const uint4*>(out + place);
    }
  }
}

}  // namespace

void queue_solve(Context& cx, const DeltaMixerArgs& m, const Tiles& tiles, int window, int chunks) {
  launch(cx, "delta_mixer", chunk_solve, dim3(static_cast<unsigned>(m.heads), static_cast<unsigned>(chunks)), dim3(128),
         sizeof(SolveShared), m, tiles, window);
}

}  // namespace nibble::ops::delta

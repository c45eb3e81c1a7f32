// Attention of the short sequences (decode, verify): the keys are split into pieces of kKeyPiece counted from position
// 0, a second kernel adds the pieces up. What is split, and the order of every sum, depends on a row's position alone.
//
// The query heads of a kv head and the rows of its sequence are the rows of one matrix, token by token, so that all of
// them share one pass over the keys. Keys and values go from memory into the registers in which mma.sync wants them,
// 16 bytes at a time: both products are taken in an order of d (scores) and of columns (values) that makes this so.
#include "ops/attention/attention_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kD = kFastSize, kWarps = 4, kThreads = kWarps * 32;
constexpr int kTile = 64;                 // keys at a time: 16 per warp for the scores, 64 of D per warp after that
constexpr int kQueryStride = kD + 32;     // elements; rows 64 bytes apart in the banks
constexpr int kWeightStride = kTile + 8;  // elements; rows 16 bytes apart in the banks
constexpr int kBlocksPerMultiprocessor = 2;
static_assert(kKeyPiece % kTile == 0);

/// 16 bytes that are read once.
__device__ uint4 load_once(const bf16* p) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(p));
  return x;
}

__device__ uint32_t word(const uint4& x, int i) {
  return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

/// One piece of the keys for kMatrices * 16 rows of one kv head of one sequence.
struct Item {
  Sequence sequence;
  int kv_head, row, piece;  // row: the first, of rows * group
  int last;                 // position of the sequence's last row
};

/// The work of all sequences in one list: how many items lie before each.
template <int kMatrices>
struct WorkList {
  const AttentionOperands& a;
  int* before;  // [sequences + 1] in shared memory

  __device__ int row_tiles(int rows) const {
    return (rows * (a.heads / a.kv_heads) + kMatrices * 16 - 1) / (kMatrices * 16);
  }
  __device__ int pieces(int last) const { return min(last / static_cast<int>(kKeyPiece) + 1, a.pieces.count); }
  __device__ int items(const Sequence& s) const {
    if (s.slot < 0 || s.rows <= 0 || s.rows > a.row_bound) return 0;
    return row_tiles(s.rows) * pieces(s.position + s.rows - 1) * a.kv_heads;
  }

  /// By the first warp.
  __device__ void fill() {
    int total = 0;
    for (int first = 0; first < a.sequences; first += 32) {
      const int index = first + lane_id();
      int count = index < a.sequences ? items(sequence_at(a, index)) : 0;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int left = __shfl_up_sync(0xFFFFFFFF, count, step);
        if (lane_id() >= step) count += left;
      }
      if (index < a.sequences) before[index + 1] = total + count;
      total += __shfl_sync(0xFFFFFFFF, count, 31);
    }
    if (lane_id() == 0) before[0] = 0;
  }
  __device__ Item find(int item) const {
    int low = 0, high = a.sequences;  // before[low] <= item < before[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (before[middle] <= item ? low : high) = middle;
    }
    const Sequence sequence = sequence_at(a, low);
    const int rest = item - before[low], tiles = row_tiles(sequence.rows);
    return {sequence, rest / tiles % a.kv_heads, rest % tiles * kMatrices * 16, rest / tiles / a.kv_heads,
            sequence.position + sequence.rows - 1};
  }
};

/// Keys of the warp: of 8 n + g, elements 32 b + 8 c .. + 7, with g = lane / 4, c = lane % 4.
struct KeyRegisters {
  uint4 x[2][8];
  __device__ void load(const bf16* keys, int64_t stride, int first, int last) {
    const int g = lane_id() / 4, c = lane_id() % 4;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      // Beyond the last position lies what was never written: the last one is read in its place, and masked.
      const bf16* const from = keys + min(first + warp_id() * 16 + n * 8 + g, last) * stride + c * 8;
#pragma unroll
      for (int b = 0; b < 8; ++b) x[n][b] = load_once(from + b * 32);
    }
  }
};

/// Values of all keys of the tile: of 16 step + {2c, 2c + 1, 2c + 8, 2c + 9}, elements 64 warp + 8 g .. + 7.
struct ValueRegisters {
  uint4 x[kTile / 16][4];
  __device__ void load(const bf16* values, int64_t stride, int first, int last) {
    const int g = lane_id() / 4, c = lane_id() % 4;
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + step * 16 + 2 * c + (i / 2) * 8 + i % 2;
        x[step][i] = load_once(values + min(key, last) * stride + warp_id() * 64 + g * 8);
      }
    }
  }
};

template <int kMatrices>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    attend_piece(const __grid_constant__ AttentionOperands a) {
  constexpr int kRows = kMatrices * 16;
  __shared__ __align__(16) bf16 queries[kRows * kQueryStride];
  __shared__ __align__(16) bf16 weights[2][kRows * kWeightStride];
  __shared__ float maxima[2][kWarps][kRows], sums[kWarps][kRows];
  extern __shared__ int before[];
  const int thread = threadIdx.x, warp = warp_id(), g = lane_id() / 4, c = lane_id() % 4;
  const int group = a.heads / a.kv_heads;
  const int64_t stride = int64_t{a.kv_heads} * kD;
  const auto heads_rows = [&](int row, const Sequence& s) {  // of q: row = token * group + head
    return (static_cast<int64_t>(s.begin) + row / group) * a.heads + row % group;
  };

  // The kernel before is `prepare`, which lets this one start when all before it is done: the batch's numbers and the
  // keys below a sequence's position are there, and may be read before the wait.
  WorkList<kMatrices> work{a, before};
  if (warp == 0) work.fill();
  __syncthreads();
  const int total = before[a.sequences];
  bool waited = false;
  const auto wait_once = [&] {
    if (!waited) {
      wait_for_predecessor();
      let_successor_start();
    }
    waited = true;
  };

  for (int number = blockIdx.x; number < total; number += gridDim.x) {
    const Item item = work.find(number);
    const Sequence& s = item.sequence;
    const int start = item.piece * static_cast<int>(kKeyPiece),
              end = min(start + static_cast<int>(kKeyPiece), item.last + 1);
    const bf16 *const keys = a.keys + cache_at(a, s.slot, 0, item.kv_head), *const values =
                                                                                a.values +
                                                                                cache_at(a, s.slot, 0, item.kv_head);
    KeyRegisters k;
    ValueRegisters v;
    if (start + kTile > s.position) wait_once();
    k.load(keys, stride, start, item.last);
    v.load(values, stride, start, item.last);
    wait_once();

    for (int chunk = thread; chunk < kRows * (kD / 8); chunk += kThreads) {
      const int row = chunk / (kD / 8), at = chunk % (kD / 8) * 8;
      uint4 x{};
      if (item.row + row < s.rows * group) {
        const int64_t from = heads_rows(item.row + row, s) + item.kv_head * group;
        x = *reinterpret_cast<const uint4*>(a.q + from * kD + at);
      }
      *reinterpret_cast<uint4*>(queries + row * kQueryStride + at) = x;
    }
    __syncthreads();

    float o[kMatrices][8][4] = {}, maximum[kMatrices][2], sum[kMatrices][2] = {};
    int position[kMatrices][2];
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        maximum[m][half] = -INFINITY;
        position[m][half] = s.position + (item.row + m * 16 + half * 8 + g) / group;
      }
    }

    for (int first = start, parity = 0; first < end; first += kTile, parity ^= 1) {
      float score[kMatrices][2][4] = {};
#pragma unroll
      for (int b = 0; b < 8; ++b) {
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          const bf16* const from = queries + (m * 16 + g) * kQueryStride + b * 32 + c * 8;
          const uint4 x = *reinterpret_cast<const uint4*>(from),
                      z = *reinterpret_cast<const uint4*>(from + 8 * kQueryStride);
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            mma_bf16(score[m][n], {x.x, z.x, x.y, z.y}, {k.x[n][b].x, k.x[n][b].y});
            mma_bf16(score[m][n], {x.z, z.z, x.w, z.w}, {k.x[n][b].z, k.x[n][b].w});
          }
        }
      }
      if (first + kTile < end) k.load(keys, stride, first + kTile, item.last);

#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float largest = -INFINITY;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float& x = score[m][i / 2][half * 2 + i % 2];
            const int key = first + warp * 16 + i / 2 * 8 + 2 * c + i % 2;
            x = key <= position[m][half] ? __fmul_rn(x, a.score_scale) : -INFINITY;
            largest = fmaxf(largest, x);
          }
          largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFF, largest, 1));
          largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFF, largest, 2));
          if (c == 0) maxima[parity][warp][m * 16 + half * 8 + g] = largest;
        }
      }
      __syncthreads();
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = m * 16 + half * 8 + g;
          float larger = maximum[m][half];
#pragma unroll
          for (int w = 0; w < kWarps; ++w) larger = fmaxf(larger, maxima[parity][w][row]);
          const float base = larger == -INFINITY ? 0.0f : larger, keep = exp2_fast(maximum[m][half] - base);
          maximum[m][half] = larger;
          float p[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) p[i] = exp2_fast(score[m][i / 2][half * 2 + i % 2] - base);
          const uint32_t low = pack_bf16(p[0], p[1]), high = pack_bf16(p[2], p[3]);
          bf16* const to = weights[parity] + row * kWeightStride + warp * 16 + 2 * c;
          *reinterpret_cast<uint32_t*>(to) = low;
          *reinterpret_cast<uint32_t*>(to + 8) = high;
          const float added =
              __fadd_rn(__fadd_rn(low_bf16(low), high_bf16(low)), __fadd_rn(low_bf16(high), high_bf16(high)));
          sum[m][half] = fmaf(sum[m][half], keep, added);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            o[m][j][half * 2] *= keep;
            o[m][j][half * 2 + 1] *= keep;
          }
        }
      }
      __syncthreads();

#pragma unroll
      for (int step = 0; step < kTile / 16; ++step) {
        uint32_t p[kMatrices][4];
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = m * 16 + i % 2 * 8 + g, at = step * 16 + i / 2 * 8 + 2 * c;
            p[m][i] = *reinterpret_cast<const uint32_t*>(weights[parity] + row * kWeightStride + at);
          }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {  // column n of product j is element 64 warp + 8 n + j of D
          const uint32_t pick = j % 2 == 0 ? 0x5410 : 0x7632;
          const uint32_t low = __byte_perm(word(v.x[step][0], j / 2), word(v.x[step][1], j / 2), pick),
                         high = __byte_perm(word(v.x[step][2], j / 2), word(v.x[step][3], j / 2), pick);
#pragma unroll
          for (int m = 0; m < kMatrices; ++m) mma_bf16(o[m][j], p[m], {low, high});
        }
      }
      if (first + kTile < end) v.load(values, stride, first + kTile, item.last);
    }

#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float x = sum[m][half];
        x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
        x += __shfl_xor_sync(0xFFFFFFFF, x, 2);
        if (c == 0) sums[warp][m * 16 + half * 8 + g] = x;
      }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int local = m * 16 + half * 8 + g, row = item.row + local;
        if (row >= s.rows * group) continue;
        const int64_t head_row =
            (static_cast<int64_t>(s.index) * a.row_bound + row / group) * a.heads + item.kv_head * group + row % group;
        const int64_t to = head_row * a.pieces.count + item.piece;
        if (warp == 0 && c == 0) {
          const float x = sums[0][local] + sums[1][local] + sums[2][local] + sums[3][local];
          a.pieces.scale[to] = make_float2(maximum[m][half], x);
        }
        float4* const y = reinterpret_cast<float4*>(a.pieces.y + to * kD + warp * 64 + c * 16);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int e = half * 2 + i / 2, j = i % 2 * 4;
          y[i] = make_float4(o[m][j][e], o[m][j + 1][e], o[m][j + 2][e], o[m][j + 3][e]);
        }
      }
    }
    __syncthreads();
  }
  wait_once();
}

template <int kMatrices>
void launch_pieces(Context& cx, const AttentionOperands& a) {
  const int64_t rows = int64_t{a.row_bound} * (a.heads / a.kv_heads);
  const int64_t tiles = (rows + kMatrices * 16 - 1) / (kMatrices * 16);
  const int64_t items = a.sequences * tiles * a.kv_heads * a.pieces.count;
  const int64_t blocks = std::min<int64_t>(items, kBlocksPerMultiprocessor * multiprocessors(cx.device));
  launch(cx, "gated_attention: pieces", attend_piece<kMatrices>, static_cast<unsigned>(blocks), kThreads,
         (static_cast<size_t>(a.sequences) + 1) * sizeof(int), a);
}

}  // namespace

void attention_short(Context& cx, const AttentionOperands& a) {
  if (a.row_bound * (a.heads / a.kv_heads) <= 16) {
    launch_pieces<1>(cx, a);
  } else {
    launch_pieces<2>(cx, a);
  }
  attention_add_pieces(cx, a);
}

}  // namespace nibble::ops

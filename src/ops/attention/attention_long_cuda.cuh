// What both kernels of the long sequences share. A block has a tile of rows of one kv head of one sequence, goes
// through the keys in tiles of kTileKeys with a running maximum and sum ("online softmax", Milakov and Gimelshein,
// 2018; the cut into tiles is that of FlashAttention-2, Dao, 2023) and keeps its part of y in registers.
//
// The rows are token * group + head: the query heads of a kv head share its keys, and few rows lie beyond the diagonal.
#pragma once

#include "ops/attention/attention_cuda.cuh"
#include "tensor/hopper.cuh"

namespace nibble::ops {

constexpr int kTileKeys = 64, kLongSize = kFastSize, kChunks = kLongSize / 8;  // a chunk: 16 bytes
constexpr int kKeyTileBytes = kTileKeys * kLongSize * 2;

#ifdef __CUDACC__
/// A tile lies in shared memory in panels of 64 columns: rows of 128 bytes whose chunks are exchanged by the row's last
/// three bits, so that neither rows nor columns meet in a bank (the 128-byte swizzle of wgmma).
template <int kRows>
__device__ inline int tile_offset(int row, int chunk) {
  return chunk / 8 * (kRows * 128) + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
}

/// The rows of a block.
struct RowTile {
  Sequence sequence;  // slot -1: nothing to do
  int kv_head, group;
  int first, rows;  // of token * group + head; rows: of the sequence
  int begin, end;   // tiles of keys, up to that of the last row
  int full;         // tiles before this one are seen in full by all rows
};

/// Block (x, y, z) has kv head x, split z of the keys, and tile y of the rows, counted from the end: late rows, which
/// take longest, come first.
template <int kRows>
__device__ RowTile row_tile(const AttentionOperands& a) {
  const int group = a.heads / a.kv_heads;
  const auto tiles_of = [&](const Sequence& s) {
    return s.slot >= 0 && s.rows > kShortRows ? (s.rows * group + kRows - 1) / kRows : 0;
  };
  int left = blockIdx.y;
  for (int i = a.sequences - 1; i >= 0; --i) {
    const Sequence s = sequence_at(a, i);
    const int tiles = tiles_of(s);
    if (left >= tiles) {
      left -= tiles;
      continue;
    }
    const int first = (tiles - 1 - left) * kRows, rows = s.rows * group, last = min(first + kRows, rows) - 1;
    const int key_tiles = (s.position + last / group) / kTileKeys + 1;
    const int share = (key_tiles + a.splits.count - 1) / a.splits.count, begin = blockIdx.z * share;
    return {s,
            static_cast<int>(blockIdx.x),
            group,
            first,
            rows,
            begin,
            min(begin + share, key_tiles),
            (s.position + first / group + 1) / kTileKeys};
  }
  return {{0, 0, 0, -1, 0}, 0, 1, 0, 0, 0, 0, 0};
}

/// Where row `at` of the tile's sequence and kv head stands in [T,nh].
__device__ inline int64_t head_row(const AttentionOperands& a, const RowTile& t, int at) {
  return (static_cast<int64_t>(t.sequence.begin) + at / t.group) * a.heads + t.kv_head * t.group + at % t.group;
}

template <int kRows, int kThreads>
__device__ void load_queries(const AttentionOperands& a, const RowTile& t, uint32_t to) {
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks, at = min(t.first + row, t.rows - 1);
    copy_async(to + tile_offset<kRows>(row, chunk), a.q + head_row(a, t, at) * kLongSize + chunk * 8);
  }
}

/// Tile number `tile` of keys or values, `cache` being those of the kv head. Beyond the sequence's last position lies
/// what was never written: the last one is read in its place, and masked.
template <int kThreads>
__device__ void load_key_tile(const AttentionOperands& a, const RowTile& t, const bf16* cache, int tile, uint32_t to) {
  const int last = t.sequence.position + t.sequence.rows - 1;
  const int64_t stride = int64_t{a.kv_heads} * kLongSize;
  constexpr int kRowsAtOnce = kThreads / kChunks;
  const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks, first = tile * kTileKeys;
  const bf16* const from = cache + chunk * 8;
  if (first + kTileKeys - 1 <= last) {
    const bf16* next = from + (first + row) * stride;
#pragma unroll
    for (int i = 0; i < kTileKeys; i += kRowsAtOnce, next += kRowsAtOnce * stride) {
      copy_async(to + tile_offset<kTileKeys>(row + i, chunk), next);
    }
  } else {
    for (int i = 0; i < kTileKeys; i += kRowsAtOnce) {
      copy_async(to + tile_offset<kTileKeys>(row + i, chunk), from + min(first + row + i, last) * stride);
    }
  }
}

/// A thread's part of 16 rows, in the layout of the results of mma: rows g and g + 8 of its warp, with g = lane / 4.
struct OnlineSoftmax {
  static constexpr float kSlack = 8;
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  float keep[2];  // the factor of what was summed before the last tile

  /// Scores of a tile become weights. `visible`: per row, how many keys of the tile it sees; read where kBorder.
  template <bool kBorder>
  __device__ void weigh(float (&s)[kTileKeys / 8][4], float scale, const int (&visible)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float larger = -INFINITY;
#pragma unroll
      for (int j = 0; j < kTileKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][half * 2 + e];
          if (kBorder && j * 8 + lane_id() % 4 * 2 + e >= visible[half]) x = -INFINITY;
          larger = fmaxf(larger, x);
        }
      }
      larger = fmaxf(larger, __shfl_xor_sync(0xFFFFFFFF, larger, 1));
      larger = fmaxf(larger, __shfl_xor_sync(0xFFFFFFFF, larger, 2));
      // Weights may grow to 2^kSlack before the maximum moves: y is then seldom rescaled.
      larger *= scale;
      larger = larger > maximum[half] + kSlack ? larger : maximum[half];
      const float base = kBorder && larger == -INFINITY ? 0.0f : larger;  // a row that sees none of these keys
      keep[half] = exp2_fast(maximum[half] - base);
      maximum[half] = larger;
      float added = 0;
#pragma unroll
      for (int j = 0; j < kTileKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][half * 2 + e];
          x = exp2_fast(fmaf(x, scale, -base));
          added += x;
        }
      }
      sum[half] = fmaf(sum[half], keep[half], added);
    }
  }
  __device__ void rescale(float (&y)[kLongSize / 8][4]) const {
    if (__all_sync(0xFFFFFFFF, keep[0] == 1 && keep[1] == 1)) return;
#pragma unroll
    for (int j = 0; j < kLongSize / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) y[j][i] *= keep[i / 2];
    }
  }
};

/// Weights of keys 16 step .. + 15 as the first operand of a product.
__device__ inline void weight_fragment(const float (&p)[kTileKeys / 8][4], int step, uint32_t (&a)[4]) {
  a[0] = pack_bf16(p[2 * step][0], p[2 * step][1]);
  a[1] = pack_bf16(p[2 * step][2], p[2 * step][3]);
  a[2] = pack_bf16(p[2 * step + 1][0], p[2 * step + 1][1]);
  a[3] = pack_bf16(p[2 * step + 1][2], p[2 * step + 1][3]);
}

/// The 16 rows of a warp, from row `base` of the tile on, as a part of the result.
__device__ inline void write_partial_rows(const AttentionOperands& a, const RowTile& t, int base,
                                          const OnlineSoftmax& softmax, const float (&y)[kLongSize / 8][4]) {
  const int g = lane_id() / 4, c = lane_id() % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.sum[half];
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2);
    const int at = t.first + base + half * 8 + g;
    if (at >= t.rows) continue;
    const int64_t to = head_row(a, t, at) * a.splits.count + blockIdx.z;
    if (c == 0) a.splits.scale[to] = make_float2(softmax.maximum[half], sum);
#pragma unroll
    for (int j = 0; j < kLongSize / 8; ++j) {
      *reinterpret_cast<float2*>(a.splits.y + to * kLongSize + j * 8 + c * 2) =
          make_float2(y[j][half * 2], y[j][half * 2 + 1]);
    }
  }
}

/// The gate of a warp's 16 rows comes to where their q was, which no warp reads any more. The warp waits for the
/// copies.
template <int kRows>
__device__ void load_gate(const AttentionOperands& a, const RowTile& t, int base, uint32_t to) {
  if (a.q_stride == kLongSize || a.splits.count > 1) return;
#pragma unroll 4
  for (int i = 0; i < 16; ++i) {
    const int at = min(t.first + base + i, t.rows - 1);
    copy_async(to + tile_offset<kRows>(base + i, lane_id()),
               a.q_gate + head_row(a, t, at) * a.q_stride + kLongSize + lane_id() * 8);
  }
}

/// The same as the result: times the gate, which load_gate brought to `tile`, rounded, and written. The result passes
/// through the gate's place, so that memory sees whole rows.
template <int kRows>
__device__ void write_finished_rows(const AttentionOperands& a, const RowTile& t, int base,
                                    const OnlineSoftmax& softmax, const float (&y)[kLongSize / 8][4], char* tile) {
  const int lane = lane_id(), g = lane / 4, c = lane % 4;
  const bool gated = a.q_stride > kLongSize;
  const int count = min(16, t.rows - t.first - base);
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.sum[half];
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1);
    sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2);
    const float inverse = 1.0f / sum;
#pragma unroll
    for (int j = 0; j < kLongSize / 8; ++j) {
      uint32_t& word = *reinterpret_cast<uint32_t*>(tile + tile_offset<kRows>(base + half * 8 + g, j) + c * 4);
      const float low = gated ? inverse * logistic(low_bf16(word)) : inverse,
                  high = gated ? inverse * logistic(high_bf16(word)) : inverse;
      word = pack_bf16(y[j][half * 2] * low, y[j][half * 2 + 1] * high);
    }
  }
  __syncwarp();
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    *reinterpret_cast<uint4*>(a.y + head_row(a, t, t.first + base + i) * kLongSize + lane * 8) =
        *reinterpret_cast<const uint4*>(tile + tile_offset<kRows>(base + i, lane));
  }
}
template <int kRows>
__device__ void write_rows(const AttentionOperands& a, const RowTile& t, int base, const OnlineSoftmax& softmax,
                           const float (&y)[kLongSize / 8][4], char* tile) {
  if (a.splits.count > 1) {
    write_partial_rows(a, t, base, softmax, y);
  } else {
    write_finished_rows<kRows>(a, t, base, softmax, y, tile);
  }
}

/// A split without keys.
template <int kRows, int kThreads>
__device__ void write_nothing(const AttentionOperands& a, const RowTile& t) {
  for (int i = t.first + threadIdx.x; i < min(t.first + kRows, t.rows); i += kThreads) {
    a.splits.scale[head_row(a, t, i) * a.splits.count + blockIdx.z] = make_float2(-INFINITY, 0);
  }
}
#endif

/// Enough blocks for T rows of any lengths.
template <int kRows>
dim3 long_grid(const AttentionOperands& a, int64_t rows) {
  const int64_t group = a.heads / a.kv_heads, long_sequences = std::min<int64_t>(a.sequences, rows / (kShortRows + 1));
  return {static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(rows * group / kRows + long_sequences),
          static_cast<unsigned>(a.splits.count)};
}

}  // namespace nibble::ops

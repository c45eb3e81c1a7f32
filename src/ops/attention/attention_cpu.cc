// Softmax over blocks of 64 keys counted from position 0, with a running maximum and sum per row ("online softmax",
// Milakov and Gimelshein, 2018). A row meets the same blocks in the same order wherever it is computed.
#include "ops/attention/attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/matrix-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// Where things lie in scratch. D is padded with zeros to a multiple of 16.
struct Rows {
  Rows(const AttentionTile& tile, float* scratch)
      : count(tile.tokens * tile.group), padded((tile.size + 15) / 16 * 16) {
    q = scratch;
    o = q + count * padded;
    block = o + count * padded;
    scores = block + (kKeyBlock + 8) * padded;
    maximum = scores + count * kKeyBlock;
    sum = maximum + count;
  }
  int64_t count, padded;
  float *q, *o;          // [count,padded]
  float* block;          // [kKeyBlock,padded] keys or values
  float* scores;         // [count,kKeyBlock]
  float *maximum, *sum;  // [count]
};

/// Cache rows [first, first + n) of the tile's kv head as f32, followed by zero rows up to `rows`.
void gather_block(const AttentionTile& tile, const Tensor& cache, int64_t first, int64_t n, int64_t rows,
                  int64_t padded, float* block) {
  const int64_t stride = cache.dim(1) * cache.dim(2), at = first * stride + tile.kv_head * tile.size;
  for (int64_t j = 0; j < n; ++j) {
    float* to = block + j * padded;
    int64_t i = 0;
    if (cache.dtype() == DType::f32) {
      std::copy_n(cache.f32() + at + j * stride, tile.size, to);
      i = tile.size;
    } else {
      const uint16_t* from = cache.bf16() + at + j * stride;
      for (; i + kLanes <= tile.size; i += kLanes) hn::StoreU(load_bf16(from + i), D(), to + i);
      for (; i < tile.size; ++i) to[i] = bf16_to_f32(from[i]);
    }
    std::fill(to + i, to + padded, 0.0f);
  }
  std::fill(block + n * padded, block + rows * padded, 0.0f);
}

/// kR query rows against `keys` rows of the block (a multiple of kTileA).
template <int kR>
void score_rows(const Rows& rows, int64_t r, int64_t keys, float scale) {
  for (int64_t j = 0; j < keys; j += kTileA) {
    V acc[kTileA][kR];
    for (auto& row : acc) std::fill_n(row, kR, hn::Zero(D()));
    dot_tile<kTileA, kR>(rows.block + j * rows.padded, rows.padded, rows.q + r * rows.padded, rows.padded, rows.padded,
                         acc);
    for (int i = 0; i < kTileA && j + i < kKeyBlock; ++i) {
      HWY_ALIGN float sums[kTileB];
      sum_lanes_of<kR>(acc[i], sums);
      for (int t = 0; t < kR; ++t) rows.scores[(r + t) * kKeyBlock + j + i] = scale * sums[t];
    }
  }
}

void score_block(const Rows& rows, int64_t keys, float scale) {
  for (int64_t r = 0; r < rows.count; r += kTileB) {
    switch (rows.count - r) {
      case 1:
        score_rows<1>(rows, r, keys, scale);
        break;
      case 2:
        score_rows<2>(rows, r, keys, scale);
        break;
      case 3:
        score_rows<3>(rows, r, keys, scale);
        break;
      default:
        score_rows<4>(rows, r, keys, scale);
        break;
    }
  }
}

/// Turns the first n scores of row r into unnormalised probabilities, the others into 0, and rescales what the row has
/// summed up to now to the new maximum.
void soften_row(const Rows& rows, int64_t r, int64_t n) {
  float* const scores = rows.scores + r * kKeyBlock;
  constexpr float kMasked = std::numeric_limits<float>::lowest() / 4;
  std::fill(scores + n, scores + kKeyBlock, kMasked);
  V largest = hn::LoadU(D(), scores);
  for (int64_t j = kLanes; j < kKeyBlock; j += kLanes) largest = hn::Max(largest, hn::LoadU(D(), scores + j));
  const float maximum = std::max(rows.maximum[r], max_lanes(largest)), keep = std::exp(rows.maximum[r] - maximum);
  const V shift = hn::Set(D(), maximum), least = hn::Set(D(), -200.0f);  // exp(-200) is 0 in f32
  V total = hn::Zero(D());
  for (int64_t j = 0; j < kKeyBlock; j += kLanes) {
    const V p = hn::Exp(D(), hn::Max(hn::Sub(hn::LoadU(D(), scores + j), shift), least));
    hn::StoreU(p, D(), scores + j);
    total = hn::Add(total, p);
  }
  rows.sum[r] = rows.sum[r] * keep + sum_lanes(total);
  rows.maximum[r] = maximum;
  float* const o = rows.o + r * rows.padded;
  const V factor = hn::Set(D(), keep);
  for (int64_t i = 0; i < rows.padded; i += kLanes) hn::StoreU(hn::Mul(factor, hn::LoadU(D(), o + i)), D(), o + i);
}

void attention_tile(const AttentionTile& tile, float* scratch) {
  const Rows rows(tile, scratch);
  const int64_t padded = rows.padded;
  std::fill_n(rows.q, rows.count * padded, 0.0f);
  std::fill_n(rows.o, rows.count * padded, 0.0f);
  std::fill_n(rows.maximum, rows.count, std::numeric_limits<float>::lowest() / 2);
  std::fill_n(rows.sum, rows.count, 0.0f);
  for (int64_t r = 0; r < rows.count; ++r) {
    const float* from = tile.q + r / tile.group * tile.query_stride + r % tile.group * tile.size;
    std::copy_n(from, tile.size, rows.q + r * padded);
  }
  const int64_t end = tile.position + tile.tokens;
  for (int64_t first = 0; first < end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, end - first), keys = (n + kTileA - 1) / kTileA * kTileA;
    gather_block(tile, *tile.keys, first, n, keys, padded, rows.block);
    score_block(rows, keys, tile.scale);
    for (int64_t r = 0; r < rows.count; ++r) {
      const int64_t visible = tile.position + r / tile.group + 1 - first;
      if (visible > 0) {
        soften_row(rows, r, std::min(visible, n));
      } else {
        std::fill_n(rows.scores + r * kKeyBlock, kKeyBlock, 0.0f);
      }
    }
    gather_block(tile, *tile.values, first, n, n, padded, rows.block);
    multiply(rows.count, padded, n, rows.scores, kKeyBlock, 1, rows.block, padded, rows.o, padded);
  }
  for (int64_t r = 0; r < rows.count; ++r) {
    float* to = tile.o + r / tile.group * tile.query_stride + r % tile.group * tile.size;
    const V inverse = hn::Set(D(), 1.0f / rows.sum[r]);
    map(rows.o + r * padded, to, tile.size, [&](V v) HWY_ATTR { return hn::Mul(v, inverse); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(attention_tile);

void attention_tile_cpu(const AttentionTile& tile, float* scratch) {
  HWY_DYNAMIC_DISPATCH(attention_tile)(tile, scratch);
}

}  // namespace nibble::ops
#endif

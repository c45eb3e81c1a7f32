// For 64 query rows at a time the probabilities of all visible keys and their gradients are held (64 x T each), so that
// the scores are computed once and the softmax is exact; the five products run block by block.
#include "ops/attention/attention_vjp_cpu.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_vjp_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/matrix-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

void pack(const PackedKeys& packed, const float* k, const float* v, int64_t stride, int64_t block) {
  const int64_t padded = packed.padded(), first = block * kKeyBlock, at = first * padded;
  const int64_t n = std::min(kKeyBlock, packed.tokens - first);
  float *const keys = packed.keys + at, *const values = packed.values_transposed + at;
  std::fill_n(keys, kKeyBlock * padded, 0.0f);
  for (int64_t j = 0; j < n; ++j) std::copy_n(k + (first + j) * stride, packed.size, keys + j * padded);
  transpose(kKeyBlock, padded, keys, padded, packed.keys_transposed + at);
  std::fill_n(values, kKeyBlock * padded, 0.0f);
  for (int64_t i = 0; i < packed.size; ++i) {
    for (int64_t j = 0; j < n; ++j) values[i * kKeyBlock + j] = v[(first + j) * stride + i];
  }
}

/// The rows of a tile against all keys, in blocks: [blocks,rows,64].
struct Pairs {
  float *p, *dp;  // scores, then probabilities; dP, then ds / scale
  int64_t rows, blocks;
  int64_t at(int64_t block, int64_t row) const { return (block * rows + row) * kKeyBlock; }
};

/// Row r, which sees the first `visible` keys. The mean of dP comes from the same numbers that it is subtracted from: a
/// row that sees one key alone gets ds = 0 exactly.
void soften_row(const Pairs& pairs, int64_t r, int64_t visible) {
  constexpr float kMasked = -3e38f;
  V largest = hn::Set(D(), kMasked);
  for (int64_t b = 0; b < pairs.blocks; ++b) {
    float* const row = pairs.p + pairs.at(b, r);
    std::fill(row + std::clamp<int64_t>(visible - b * kKeyBlock, 0, kKeyBlock), row + kKeyBlock, kMasked);
    for (int64_t j = 0; j < kKeyBlock; j += kLanes) largest = hn::Max(largest, hn::LoadU(D(), row + j));
  }
  const V maximum = hn::Set(D(), max_lanes(largest)), least = hn::Set(D(), -200.0f);  // exp(-200) is 0 in f32
  V total = hn::Zero(D());
  for (int64_t b = 0; b < pairs.blocks; ++b) {
    float* const row = pairs.p + pairs.at(b, r);
    for (int64_t j = 0; j < kKeyBlock; j += kLanes) {
      const V p = hn::Exp(D(), hn::Max(hn::Sub(hn::LoadU(D(), row + j), maximum), least));
      hn::StoreU(p, D(), row + j);
      total = hn::Add(total, p);
    }
  }
  const V inverse = hn::Set(D(), 1.0f / sum_lanes(total));
  V weighted = hn::Zero(D());
  for (int64_t b = 0; b < pairs.blocks; ++b) {
    float *const row = pairs.p + pairs.at(b, r), *const grad = pairs.dp + pairs.at(b, r);
    for (int64_t j = 0; j < kKeyBlock; j += kLanes) {
      const V p = hn::Mul(hn::LoadU(D(), row + j), inverse);
      hn::StoreU(p, D(), row + j);
      weighted = hn::MulAdd(p, hn::LoadU(D(), grad + j), weighted);
    }
  }
  const V mean = hn::Set(D(), sum_lanes(weighted));
  for (int64_t b = 0; b < pairs.blocks; ++b) {
    float* const grad = pairs.dp + pairs.at(b, r);
    map(pairs.p + pairs.at(b, r), grad, grad, kKeyBlock,
        [&](V p, V dp) HWY_ATTR { return hn::Mul(p, hn::Sub(dp, mean)); });
  }
}

void attention_vjp_tile(const AttentionVjpTile& tile, float* scratch) {
  const PackedKeys& packed = *tile.packed;
  const int64_t rows = tile.tokens * tile.group, padded = packed.padded(), size = packed.size;
  const int64_t blocks = (tile.position + tile.tokens + kKeyBlock - 1) / kKeyBlock;
  float *const q = scratch, *const dy = q + rows * padded, *const dq = dy + rows * padded;
  const Pairs pairs{dq + rows * padded, dq + rows * padded + blocks * rows * kKeyBlock, rows, blocks};
  std::fill_n(scratch, 3 * rows * padded + 2 * blocks * rows * kKeyBlock, 0.0f);
  const auto offset_of = [&](int64_t r) { return r / tile.group * tile.query_stride + r % tile.group * size; };
  const V scale = hn::Set(D(), tile.scale);
  for (int64_t r = 0; r < rows; ++r) {
    map(tile.q + offset_of(r), q + r * padded, size, [&](V x) HWY_ATTR { return hn::Mul(scale, x); });
    std::copy_n(tile.dy + offset_of(r), size, dy + r * padded);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t block = b * kKeyBlock * padded, at = pairs.at(b, 0);
    multiply(rows, kKeyBlock, padded, q, padded, 1, packed.keys_transposed + block, kKeyBlock, pairs.p + at, kKeyBlock);
    multiply(rows, kKeyBlock, padded, dy, padded, 1, packed.values_transposed + block, kKeyBlock, pairs.dp + at,
             kKeyBlock);
  }
  for (int64_t r = 0; r < rows; ++r) soften_row(pairs, r, tile.position + r / tile.group + 1);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t block = b * kKeyBlock * padded, at = pairs.at(b, 0);
    const int64_t keys = std::min(kKeyBlock, packed.tokens - b * kKeyBlock);
    multiply(keys, padded, rows, pairs.p + at, 1, kKeyBlock, dy, padded, tile.dv + block, padded);
    multiply(keys, padded, rows, pairs.dp + at, 1, kKeyBlock, q, padded, tile.dk + block, padded);
    multiply(rows, padded, keys, pairs.dp + at, kKeyBlock, 1, packed.keys + block, padded, dq, padded);
  }
  for (int64_t r = 0; r < rows; ++r) {
    map(dq + r * padded, tile.dq + offset_of(r), size, [&](V x) HWY_ATTR { return hn::Mul(scale, x); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(pack);
HWY_EXPORT(attention_vjp_tile);

void attention_pack_cpu(const PackedKeys& packed, const float* k, const float* v, int64_t stride, int64_t block) {
  HWY_DYNAMIC_DISPATCH(pack)(packed, k, v, stride, block);
}
void attention_vjp_tile_cpu(const AttentionVjpTile& tile, float* scratch) {
  HWY_DYNAMIC_DISPATCH(attention_vjp_tile)(tile, scratch);
}

}  // namespace nibble::ops
#endif

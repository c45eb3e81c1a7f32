#include <algorithm>

#include "ops/attention/attention.h"
#include "ops/attention/attention_vjp_cpu.h"
#include "ops/backend.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

/// Query tiles of a kv head are dealt to this many lanes, each with its own sums for dk and dv, which are then added in
/// order. So few kv heads still keep several threads busy.
int64_t lanes_of(int64_t kv_heads, int64_t tiles) {
  constexpr int64_t kItems = 4;
  return std::clamp<int64_t>(kItems / kv_heads, 1, std::max<int64_t>(1, tiles));
}

/// to[t,kv,:] = the sum over lanes of sums[kv,lane,t,:].
void sum_lanes_into(Context& cx, const float* sums, int64_t lanes, int64_t lane_floats, int64_t padded, Tensor& to) {
  const int64_t tokens = to.dim(0), kv_heads = to.dim(1), size = to.dim(2);
  float* out = to.f32();
  cx.pool.parallel_for(tokens * kv_heads, row_grain(lanes * size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* from = sums + i % kv_heads * lanes * lane_floats + i / kv_heads * padded;
      std::copy_n(from, size, out + i * size);
      for (int64_t lane = 1; lane < lanes; ++lane) {
        for (int64_t j = 0; j < size; ++j) out[i * size + j] += from[lane * lane_floats + j];
      }
    }
  });
}

}  // namespace

void attention_vjp(Context& cx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, float scale,
                   Tensor& dq, Tensor& dk, Tensor& dv) {
  require_cpu("attention_vjp", dy);
  NIBBLE_CHECK(q.rank() == 3 && dy.shape() == q.shape() && dq.shape() == q.shape());
  NIBBLE_CHECK(k.rank() == 3 && v.shape() == k.shape() && dk.shape() == k.shape() && dv.shape() == k.shape());
  const int64_t tokens = q.dim(0), heads = q.dim(1), size = q.dim(2), kv_heads = k.dim(1);
  NIBBLE_CHECK(k.dim(0) == tokens && k.dim(2) == size && kv_heads > 0 && heads % kv_heads == 0);
  const int64_t group = heads / kv_heads, tile_tokens = std::max<int64_t>(1, kAttentionRows / group);
  const int64_t tiles = (tokens + tile_tokens - 1) / tile_tokens, lanes = lanes_of(kv_heads, tiles);

  const Arena::Scope scope(cx.arena);
  const PackedKeys shape{tokens, size, nullptr, nullptr, nullptr};
  const int64_t floats = shape.floats(), blocks = shape.blocks(), padded = shape.padded();
  float* const packed = cx.arena.f32({kv_heads, 3, floats}).f32();
  float* const dk_sums = cx.arena.f32({kv_heads, lanes, floats}).f32();
  float* const dv_sums = cx.arena.f32({kv_heads, lanes, floats}).f32();
  const auto packed_at = [&](int64_t kv) {
    float* const at = packed + kv * 3 * floats;
    return PackedKeys{tokens, size, at, at + floats, at + 2 * floats};
  };
  cx.pool.parallel_for(kv_heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t kv = i / blocks;
      attention_pack_cpu(packed_at(kv), k.f32() + kv * size, v.f32() + kv * size, kv_heads * size, i % blocks);
    }
  });

  const int64_t rows = std::min(tokens, tile_tokens) * group, cost = (tiles / lanes + 1) * rows * tokens * size / 4;
  for_each_item(cx, kv_heads * lanes, cost, attention_vjp_floats(rows, size, blocks), [&](int64_t i, float* scratch) {
    const int64_t kv = i / lanes;
    const PackedKeys keys = packed_at(kv);
    std::fill_n(dk_sums + i * floats, floats, 0.0f);
    std::fill_n(dv_sums + i * floats, floats, 0.0f);
    for (int64_t tile = i % lanes; tile < tiles; tile += lanes) {
      const int64_t first = tile * tile_tokens, at = (first * heads + kv * group) * size;
      attention_vjp_tile_cpu({.q = q.f32() + at,
                              .dy = dy.f32() + at,
                              .dq = dq.f32() + at,
                              .tokens = std::min(tile_tokens, tokens - first),
                              .group = group,
                              .query_stride = heads * size,
                              .position = first,
                              .packed = &keys,
                              .dk = dk_sums + i * floats,
                              .dv = dv_sums + i * floats,
                              .scale = scale},
                             scratch);
    }
  });
  sum_lanes_into(cx, dk_sums, lanes, floats, padded, dk);
  sum_lanes_into(cx, dv_sums, lanes, floats, padded, dv);
}

}  // namespace nibble::ops

#include "ops/attention/attention.h"

#include <algorithm>

#include "ops/attention/attention_cpu.h"
#include "ops/backend.h"
#include "ops/parallel.h"
#include "tensor/numeric.h"

namespace nibble::ops {
namespace {

bool is_cache(const Tensor& cache) {
  return cache.rank() == 3 && (cache.dtype() == DType::f32 || cache.dtype() == DType::bf16);
}

}  // namespace

void attention(Context& cx, const Tensor& q, const Tensor& keys, const Tensor& values, int64_t past, float scale,
               Tensor& o) {
  require_cpu("attention", o);
  NIBBLE_CHECK(q.rank() == 3 && o.shape() == q.shape() && is_cache(keys));
  NIBBLE_CHECK(values.shape() == keys.shape() && values.dtype() == keys.dtype());
  const int64_t tokens = q.dim(0), heads = q.dim(1), size = q.dim(2), kv_heads = keys.dim(1);
  NIBBLE_CHECK(keys.dim(2) == size && kv_heads > 0 && heads % kv_heads == 0);
  NIBBLE_CHECK(past >= 0 && past + tokens <= keys.dim(0));
  const int64_t group = heads / kv_heads, tile_tokens = std::max<int64_t>(1, kAttentionRows / group);
  const int64_t tiles = (tokens + tile_tokens - 1) / tile_tokens;
  const float* in = q.f32();
  float* out = o.f32();

  const int64_t rows = std::min(tokens, tile_tokens) * group;
  const int64_t cost = (past + tokens) * (rows + 4) * size / 4;
  for_each_item(cx, kv_heads * tiles, cost, attention_floats(rows, size), [&](int64_t item, float* scratch) {
    const int64_t kv_head = item % kv_heads, first = item / kv_heads * tile_tokens;
    const int64_t at = (first * heads + kv_head * group) * size;
    attention_tile_cpu({.q = in + at,
                        .o = out + at,
                        .tokens = std::min(tile_tokens, tokens - first),
                        .group = group,
                        .size = size,
                        .query_stride = heads * size,
                        .position = past + first,
                        .keys = &keys,
                        .values = &values,
                        .kv_head = kv_head,
                        .scale = scale},
                       scratch);
  });
}

void append_kv(Context& cx, const Tensor& k, int64_t position, Tensor& cache) {
  require_cpu("append_kv", cache);
  NIBBLE_CHECK(k.rank() == 3 && is_cache(cache) && k.dim(1) == cache.dim(1) && k.dim(2) == cache.dim(2));
  NIBBLE_CHECK(position >= 0 && position + k.dim(0) <= cache.dim(0));
  const int64_t row = k.dim(1) * k.dim(2);
  const float* from = k.f32();
  cx.pool.parallel_for(k.elements(), row_grain(1), [&](int64_t begin, int64_t end) {
    if (cache.dtype() == DType::f32) {
      std::copy(from + begin, from + end, cache.f32() + position * row + begin);
    } else {
      std::transform(from + begin, from + end, cache.bf16() + position * row + begin, f32_to_bf16);
    }
  });
}

}  // namespace nibble::ops

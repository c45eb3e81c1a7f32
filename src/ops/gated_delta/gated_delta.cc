#include "ops/gated_delta/gated_delta.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/gated_delta/gated_delta_cpu.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta, const Tensor& S,
           const Tensor& y) {
  NIBBLE_CHECK(q.rank() == 3 && k.shape() == q.shape());
  NIBBLE_CHECK(v.rank() == 3 && v.dim(0) == q.dim(0) && y.shape() == v.shape());
  NIBBLE_CHECK(g.shape() == Shape({v.dim(0), v.dim(1)}) && beta.shape() == g.shape());
  NIBBLE_CHECK(S.shape() == Shape({v.dim(1), q.dim(2), v.dim(2)}));
  NIBBLE_CHECK(q.dim(1) > 0 && v.dim(1) % q.dim(1) == 0 && q.dim(2) % 16 == 0 && v.dim(2) % 16 == 0);
}

/// All heads over one tile of at most kRecurrentRows rows.
template <class HeadAt>
void recurrent_tile(Context& cx, int64_t heads, int64_t rows, int64_t key_size, int64_t value_size,
                    const HeadAt& head_at) {
  const int64_t slices = (value_size + kDeltaColumns - 1) / kDeltaColumns;
  const int64_t cost = rows * key_size * kDeltaColumns / 4;
  cx.pool.parallel_for(heads * slices, row_grain(cost), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t column = item % slices * kDeltaColumns;
      gated_delta_recurrent_cpu(head_at(item / slices), column, std::min(kDeltaColumns, value_size - column));
    }
  });
}

}  // namespace

void gated_delta(Context& cx, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
                 float scale, Tensor& S, Tensor& y) {
  require_cpu("gated_delta", y);
  check(q, k, v, g, beta, S, y);
  const int64_t tokens = v.dim(0), heads = v.dim(1), value_size = v.dim(2), key_heads = q.dim(1), key_size = q.dim(2);
  const float *in_q = q.f32(), *in_k = k.f32(), *in_v = v.f32(), *in_g = g.f32(), *in_beta = beta.f32();
  float *state = S.f32(), *out = y.f32();

  for (int64_t first = 0; first < tokens; first += kDeltaTile) {
    const int64_t rows = std::min(kDeltaTile, tokens - first);
    const auto head_at = [&](int64_t h) {
      const int64_t key = (first * key_heads + h / (heads / key_heads)) * key_size;
      const int64_t value = (first * heads + h) * value_size, gate = first * heads + h;
      return DeltaHead{.rows = rows,
                       .key_size = key_size,
                       .value_size = value_size,
                       .q = in_q + key,
                       .k = in_k + key,
                       .key_stride = key_heads * key_size,
                       .v = in_v + value,
                       .y = out + value,
                       .value_stride = heads * value_size,
                       .g = in_g + gate,
                       .beta = in_beta + gate,
                       .gate_stride = heads,
                       .scale = scale,
                       .state = state + h * key_size * value_size};
    };
    if (rows <= kRecurrentRows) {
      recurrent_tile(cx, heads, rows, key_size, value_size, head_at);
      continue;
    }
    const int64_t cost = rows * (key_size + rows) * (value_size + key_size) / 4;
    for_each_item(cx, heads, cost, delta_chunk_floats(key_size, value_size),
                  [&](int64_t h, float* scratch) { gated_delta_chunk_cpu(head_at(h), scratch); });
  }
}

}  // namespace nibble::ops

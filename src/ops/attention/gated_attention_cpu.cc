#include <cmath>

#include "ops/attention/attention.h"
#include "ops/attention/gated_attention_backends.h"
#include "ops/norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/shape/split.h"

namespace nibble::ops {
namespace {

Tensor slot_of(const Tensor& cache, int64_t slot) {
  return cache.rows(slot, slot + 1).reshape({cache.dim(1), cache.dim(2), cache.dim(3)});
}

Tensor norm_and_rope(Context& cx, const Tensor& x, const Tensor& norm, const GatedAttentionWeights& w,
                     int64_t position) {
  Tensor y = cx.arena.f32(x.shape());
  rms_norm(cx, x, norm, w.eps, Gain::one_plus, y);
  rope(cx, y, position, w.rotary_dim, w.rope_theta, y);
  return y;
}

}  // namespace

void gated_attention_cpu(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                         const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y) {
  const int64_t heads = y.dim(1), size = y.dim(2);
  const bool gated = q_gate.dim(2) != size;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t s = 0; s < batch.sequences; ++s) {
    const int64_t begin = batch.begin.i32()[s], end = batch.begin.i32()[s + 1];
    const int64_t slot = batch.slot.i32()[s], position = batch.position.i32()[s];
    NIBBLE_CHECK(0 <= begin && begin <= end && end <= y.dim(0) && slot < keys.dim(0));
    if (slot < 0 || begin == end) continue;
    NIBBLE_CHECK(end - begin <= batch.longest && 0 <= position && position + end - begin <= batch.reach);

    Arena::Scope scope(cx.arena);
    Tensor q = q_gate.rows(begin, end), gate, out = y.rows(begin, end);
    if (gated) {
      const Tensor both = q;
      q = cx.arena.f32({end - begin, heads, size});
      gate = cx.arena.f32({end - begin, heads, size});
      split_heads(cx, both, q, gate);
    }
    Tensor slot_keys = slot_of(keys, slot), slot_values = slot_of(values, slot);
    append_kv(cx, norm_and_rope(cx, k.rows(begin, end), w.k_norm, w, position), position, slot_keys);
    append_kv(cx, v.rows(begin, end), position, slot_values);
    attention(cx, norm_and_rope(cx, q, w.q_norm, w, position), slot_keys, slot_values, position, scale, out);
    if (gated) sigmoid_gate(cx, out, gate, out);
  }
}

}  // namespace nibble::ops

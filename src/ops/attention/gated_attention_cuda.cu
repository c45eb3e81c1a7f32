#include <cmath>

#include "ops/attention/attention_cuda.cuh"

namespace nibble::ops {
namespace {

bf16* bf16_of(const Tensor& x) {
  return reinterpret_cast<bf16*>(x.bf16());
}

Partials take_partials(Context& cx, int64_t count, int64_t partials, int64_t size) {
  if (partials == 0) return {static_cast<int>(count), nullptr, nullptr};
  float* const y = cx.arena.f32({partials, size}).f32();
  return {static_cast<int>(count), y, reinterpret_cast<float2*>(cx.arena.f32({partials, 2}).f32())};
}

}  // namespace

void gated_attention_cuda(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                          const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y) {
  const int64_t rows = y.dim(0), heads = y.dim(1), size = y.dim(2);
  NIBBLE_CHECK(size % 16 == 0 && size <= kFastSize && rows < (int64_t{1} << 31) / (heads * 2));
  const AttentionPlan plan(rows, batch, heads, k.dim(1), size);

  Arena::Scope scope(cx.arena);
  AttentionOperands a{};
  a.begin = batch.begin.i32();
  a.slot = batch.slot.i32();
  a.position = batch.position.i32();
  a.sequences = static_cast<int>(batch.sequences);
  a.heads = static_cast<int>(heads);
  a.kv_heads = static_cast<int>(k.dim(1));
  a.size = static_cast<int>(size);
  a.capacity = keys.dim(1);
  a.q_gate = bf16_of(q_gate);
  a.k = bf16_of(k);
  a.v = bf16_of(v);
  a.q_stride = static_cast<int>(q_gate.dim(2));
  a.q = bf16_of(cx.arena.take(DType::bf16, y.shape()));
  a.keys = bf16_of(keys);
  a.values = bf16_of(values);
  a.y = bf16_of(y);
  a.score_scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(size)));
  a.row_bound = static_cast<int>(plan.row_bound);
  a.pieces = take_partials(cx, plan.pieces, plan.partials(batch, heads), size);
  a.splits = take_partials(cx, plan.splits, plan.long_partials(rows, heads), size);

  attention_prepare(cx, a, rows, w);
  if (!plan.fast) attention_any_size(cx, a, rows);
  if (plan.some_short) attention_short(cx, a);
  if (plan.some_long) (has_warpgroup_products(cx.device) ? attention_long_wgmma : attention_long)(cx, a, rows);
  if (plan.splits > 1) attention_add_splits(cx, a, rows);
}

}  // namespace nibble::ops

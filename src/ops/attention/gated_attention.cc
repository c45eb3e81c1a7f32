#include "ops/attention/gated_attention.h"

#include "ops/attention/gated_attention_backends.h"
#include "tensor/dispatch.h"

namespace nibble::ops {
namespace {

bool is_list(const Tensor& list, int64_t count, Device device) {
  return list.dtype() == DType::i32 && list.shape() == Shape{count} && list.device() == device;
}

bool is_cache(const Tensor& cache, bool cuda) {
  return cache.rank() == 4 && (cache.dtype() == DType::bf16 || (cache.dtype() == DType::f32 && !cuda));
}

}  // namespace

void gated_attention(Context& cx, const Batch& batch, const Tensor& q_gate, const Tensor& k, const Tensor& v,
                     const GatedAttentionWeights& w, Tensor& keys, Tensor& values, Tensor& y) {
  const Device device = y.device();
  const DType dtype = device.is_cuda() ? DType::bf16 : DType::f32;
  NIBBLE_CHECK(y.rank() == 3 && k.rank() == 3 && is_cache(keys, device.is_cuda()));
  const int64_t rows = y.dim(0), heads = y.dim(1), size = y.dim(2), kv_heads = k.dim(1);
  NIBBLE_CHECK(q_gate.shape() == y.shape() || q_gate.shape() == (Shape{rows, heads, 2 * size}));
  NIBBLE_CHECK(k.shape() == (Shape{rows, kv_heads, size}) && v.shape() == k.shape());
  NIBBLE_CHECK(y.dtype() == dtype && q_gate.dtype() == dtype && k.dtype() == dtype && v.dtype() == dtype);
  NIBBLE_CHECK(kv_heads > 0 && heads % kv_heads == 0);
  NIBBLE_CHECK(keys.dim(2) == kv_heads && keys.dim(3) == size);
  NIBBLE_CHECK(values.shape() == keys.shape() && values.dtype() == keys.dtype());
  NIBBLE_CHECK(w.q_norm.shape() == Shape{size} && w.k_norm.shape() == Shape{size});
  NIBBLE_CHECK(w.rotary_dim % 2 == 0 && 0 <= w.rotary_dim && w.rotary_dim <= size);
  NIBBLE_CHECK(batch.sequences >= 0 && batch.longest >= 0 && 0 <= batch.reach && batch.reach <= keys.dim(1));
  NIBBLE_CHECK(is_list(batch.begin, batch.sequences + 1, device) && is_list(batch.slot, batch.sequences, device) &&
               is_list(batch.position, batch.sequences, device));
  if (rows == 0 || batch.sequences == 0) return;
  NIBBLE_CHECK(batch.longest > 0 && batch.reach > 0);
  NIBBLE_DISPATCH(device, gated_attention, cx, batch, q_gate, k, v, w, keys, values, y);
}

size_t gated_attention_scratch_bytes(int64_t rows, const Batch& batch, int64_t heads, int64_t kv_heads, int64_t size) {
  constexpr size_t kAlign = 256;
  const auto taken = [](int64_t elements, size_t each) {
    return (static_cast<size_t>(elements) * each + kAlign - 1) / kAlign * kAlign;
  };
  const AttentionPlan plan(rows, batch, heads, kv_heads, size);
  size_t bytes = taken(rows * heads * size, sizeof(uint16_t));
  for (const int64_t partials : {plan.partials(batch, heads), plan.long_partials(rows, heads)}) {
    bytes += taken(partials * size, sizeof(float)) + taken(partials * 2, sizeof(float));
  }
  return bytes;
}

}  // namespace nibble::ops

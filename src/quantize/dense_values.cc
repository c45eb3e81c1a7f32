#include "quantize/dense_values.h"

#include <cstring>

#include "tensor/numeric.h"

namespace nibble::quantize {

void dense_values(Context& cx, const Tensor& w, const Tensor& out) {
  NIBBLE_CHECK(w.shape() == out.shape() && (w.dtype() == DType::f32 || w.dtype() == DType::bf16));
  float* to = out.f32();
  if (w.dtype() == DType::f32) {
    std::memcpy(to, w.raw(), w.bytes());
    return;
  }
  const auto* from = static_cast<const std::byte*>(w.raw());
  cx.pool.parallel_for(w.elements(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint16_t bits;
      std::memcpy(&bits, from + i * 2, sizeof bits);
      to[i] = bf16_to_f32(bits);
    }
  });
}

}  // namespace nibble::quantize

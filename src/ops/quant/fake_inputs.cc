#include "ops/quant/fake_inputs.h"

#include <algorithm>
#include <limits>

#include "ops/parallel.h"
#include "ops/quant/nvfp4_rows.h"
#include "tensor/numeric.h"

namespace nibble::ops {
namespace {

constexpr int64_t kStepsPerElement = 4;

/// The largest magnitude of a row; NaN and infinity count as larger than all numbers. Magnitudes are ordered as their
/// bits are.
float row_amax(const float* x, int64_t n) {
  uint32_t bits = 0;
  for (int64_t i = 0; i < n; ++i) bits = std::max(bits, f32_bits(x[i]) & 0x7FFFFFFF);
  return f32_from_bits(bits);
}

}  // namespace

void nvfp4_fake_rows(Context& cx, const Tensor& x, const Tensor& y) {
  NIBBLE_CHECK(x.rank() == 2 && x.dim(1) % kNvfp4Block == 0 && y.shape() == x.shape());
  const int64_t columns = x.dim(1);
  const float* from = x.f32();
  float* to = y.f32();
  cx.pool.parallel_for(x.dim(0), row_grain(columns * kStepsPerElement), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float amax = row_amax(from + t * columns, columns);
      const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax);
      if (!(amax <= std::numeric_limits<float>::max())) {
        std::fill_n(to + t * columns, columns, std::numeric_limits<float>::quiet_NaN());
      } else if (scale.zero) {
        std::fill_n(to + t * columns, columns, 0.0f);
      } else {
        nvfp4_fake_row(from + t * columns, columns / kNvfp4Block, scale.ws2, to + t * columns);
      }
    }
  });
}

void fp8_fake(Context& cx, const Tensor& x, float scale, const Tensor& y) {
  NIBBLE_CHECK(y.shape() == x.shape() && scale > 0);
  const float* from = x.f32();
  float* to = y.f32();
  cx.pool.parallel_for(x.elements(), row_grain(kStepsPerElement), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float ratio = div_rn(from[i], scale);
      // Comparisons that a NaN fails, so that it stays.
      const float clamped = ratio > kE4m3Max ? kE4m3Max : ratio < -kE4m3Max ? -kE4m3Max : ratio;
      to[i] = mul_rn(e4m3_to_f32(f32_to_e4m3(clamped)), scale);
    }
  });
}

}  // namespace nibble::ops

#include "ops/quant/fp8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "ops/quant/source_rows.h"

namespace nibble::ops {
namespace {

constexpr int64_t kStepsPerElement = 8;  // a division, a rounding by integer steps, two sums in f64

struct RowSums {
  double energy = 0, error = 0, max_error = 0;
};

RowSums encode_row(const float* w, int64_t n, float scale, uint8_t* codes) {
  RowSums sums;
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = fp8_code(w[i], scale);
    const auto x = static_cast<double>(w[i]), difference = static_cast<double>(fp8_value(codes[i], scale)) - x;
    sums.energy += x * x;
    sums.error += difference * difference;
    sums.max_error = std::max(sums.max_error, std::abs(difference));
  }
  return sums;
}

float row_amax(const float* w, int64_t n) {
  float amax = 0;
  for (int64_t i = 0; i < n; ++i) amax = std::max(amax, std::abs(w[i]));
  return amax;
}

// scale_of(row, its elements) is the scale of a row.
template <class ScaleOf>
Fp8Stats encode(const char* op, Context& cx, const Tensor& w, const Tensor& codes, const ScaleOf& scale_of) {
  check_quant_source(op, w);
  NIBBLE_CHECK(codes.dtype() == DType::f8e4m3 && codes.shape() == w.shape());
  const int64_t rows = w.dim(0), columns = w.dim(1);
  std::vector<RowSums> sums(static_cast<size_t>(rows));
  for_each_row(cx, w, kStepsPerElement, [&](int64_t row, const float* values) {
    sums[static_cast<size_t>(row)] = encode_row(values, columns, scale_of(row, values), codes.u8() + row * columns);
  });
  Fp8Stats stats;
  for (const RowSums& one : sums) {
    stats.energy += one.energy;
    stats.error += one.error;
    stats.max_error = std::max(stats.max_error, one.max_error);
  }
  return stats;
}

template <class ScaleOf>
void decode(const char* op, Context& cx, const Tensor& codes, const Tensor& y, const ScaleOf& scale_of) {
  require_cpu(op, y);
  NIBBLE_CHECK(y.rank() == 2 && codes.dtype() == DType::f8e4m3 && codes.shape() == y.shape());
  std::array<float, 256> value_of;
  for (size_t code = 0; code < 256; ++code) value_of[code] = e4m3_to_f32(static_cast<uint8_t>(code));
  const int64_t columns = y.dim(1);
  float* out = y.f32();
  cx.pool.parallel_for(y.dim(0), row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float scale = scale_of(row);
      for (int64_t i = row * columns; i < (row + 1) * columns; ++i) out[i] = mul_rn(value_of[codes.u8()[i]], scale);
    }
  });
}

}  // namespace

Fp8Stats fp8_quantize(Context& cx, const Tensor& w, float scale, const Tensor& codes) {
  NIBBLE_CHECK(scale > 0);
  return encode("fp8_quantize", cx, w, codes, [&](int64_t, const float*) { return scale; });
}

Fp8Stats fp8_quantize_channels(Context& cx, const Tensor& w, const Tensor& codes, const Tensor& scales) {
  NIBBLE_CHECK(scales.shape() == Shape({w.dim(0)}));
  float* const out = scales.f32();
  return encode("fp8_quantize_channels", cx, w, codes,
                [&](int64_t row, const float* values) { return out[row] = fp8_scale(row_amax(values, w.dim(1))); });
}

void fp8_dequantize(Context& cx, const Tensor& codes, float scale, const Tensor& y) {
  decode("fp8_dequantize", cx, codes, y, [&](int64_t) { return scale; });
}

void fp8_dequantize_channels(Context& cx, const Tensor& codes, const Tensor& scales, const Tensor& y) {
  NIBBLE_CHECK(scales.shape() == Shape({y.dim(0)}));
  const float* const scale = scales.f32();
  decode("fp8_dequantize_channels", cx, codes, y, [&](int64_t row) { return scale[row]; });
}

}  // namespace nibble::ops

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "ops/quant/nvfp4.h"
#include "ops/quant/nvfp4_rows.h"
#include "ops/quant/source_rows.h"

namespace nibble::ops {
namespace {

constexpr int64_t kBlock = kNvfp4Block;

// Rough steps per element (see row_grain) of a division and the comparisons around it.
constexpr int64_t kStepsPerElement = 4;
constexpr int64_t kSearchStepsPerElement = 80;
constexpr int64_t kHessianStepsPerElement = 400;

constexpr int64_t kAmaxElements = 1 << 14;  // per range of tensor_amax

void check_scales(const Tensor& scales, int64_t rows, int64_t columns) {
  NIBBLE_CHECK(columns % kBlock == 0);
  NIBBLE_CHECK(scales.dtype() == DType::f8e4m3 && scales.shape() == Shape({rows, columns / kBlock}));
}

void check_codes(const Tensor& codes, int64_t rows, int64_t columns) {
  NIBBLE_CHECK(codes.dtype() == DType::u8 && codes.shape() == Shape({rows, columns / 2}));
}

// The row of a tensor that is stored as zero; its sums are in plain units.
Nvfp4RowSums zero_row(const float* w, int64_t columns, uint8_t* codes) {
  std::fill_n(codes, columns / 2, uint8_t{0});
  Nvfp4RowSums sums;
  for (int64_t i = 0; i < columns; ++i) {
    sums.energy += static_cast<double>(w[i]) * w[i];
    sums.max_error = std::max(sums.max_error, std::abs(w[i]));
    sums.lost = sums.lost || w[i] != 0;
  }
  sums.error = sums.energy;
  return sums;
}

void count_scales(const Tensor& scales, Nvfp4Stats& stats) {
  stats.blocks = scales.elements();
  for (int64_t i = 0; i < stats.blocks; ++i) {
    const uint8_t scale = scales.u8()[i];
    stats.floor_blocks += scale == 0x01;
    stats.low_blocks += scale < 0x08;
    stats.top_blocks += scale == kE4m3MaxByte;
  }
}

// What the strategies share; row(its elements, blocks, ws2, its scales) chooses the scales of one row.
template <class Row>
void choose_scales(const char* op, Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales,
                   int64_t steps_per_element, const Row& row) {
  check_quant_source(op, w);
  check_scales(scales, w.dim(0), w.dim(1));
  const int64_t blocks = w.dim(1) / kBlock;
  if (scale.zero) {
    std::fill_n(scales.u8(), scales.elements(), kE4m3One);
    return;
  }
  for_each_row(cx, w, steps_per_element,
               [&](int64_t r, const float* values) { row(values, blocks, scale.ws2, scales.u8() + r * blocks); });
}

}  // namespace

TensorAmax tensor_amax(Context& cx, const Tensor& w) {
  check_quant_source("tensor_amax", w);
  const int64_t elements = w.elements(), ranges = (elements + kAmaxElements - 1) / kAmaxElements;
  std::vector<int32_t> largest(static_cast<size_t>(ranges));
  for_each_item(cx, ranges, kAmaxElements, kAmaxElements, [&](int64_t range, float* scratch) {
    const int64_t begin = range * kAmaxElements, n = std::min(kAmaxElements, elements - begin);
    read_f32(w, begin, n, scratch);
    int32_t bits = 0;
    for (int64_t i = 0; i < n; ++i) bits = std::max(bits, static_cast<int32_t>(f32_bits(scratch[i]) & 0x7FFFFFFF));
    largest[static_cast<size_t>(range)] = bits;
  });
  TensorAmax result;
  const int32_t bits = largest.empty() ? 0 : *std::max_element(largest.begin(), largest.end());
  result.amax = f32_from_bits(static_cast<uint32_t>(bits));
  for (int64_t i = 0; !std::isfinite(result.amax) && result.finite(); ++i) {
    float value;
    read_f32(w, i, 1, &value);
    if (!std::isfinite(value)) {
      result.row = i / w.dim(1);
      result.col = i % w.dim(1);
    }
  }
  return result;
}

void nvfp4_scales_max(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales) {
  choose_scales("nvfp4_scales_max", cx, w, scale, scales, kStepsPerElement, nvfp4_scales_row);
}

void nvfp4_scales_mse(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales) {
  choose_scales("nvfp4_scales_mse", cx, w, scale, scales, kSearchStepsPerElement, nvfp4_search_row);
}

void nvfp4_scales_four_over_six(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales) {
  choose_scales("nvfp4_scales_four_over_six", cx, w, scale, scales, 4 * kStepsPerElement, nvfp4_four_over_six_row);
}

void nvfp4_scales_hessian(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& hessian,
                          const Tensor& scales) {
  const int64_t blocks = scales.dim(1);
  NIBBLE_CHECK(hessian.shape() == Shape({blocks, kBlock, kBlock}));
  std::vector<Nvfp4BlockHessian> prepared;
  prepared.reserve(static_cast<size_t>(blocks));
  for (int64_t b = 0; b < blocks; ++b) prepared.push_back(nvfp4_block_hessian(hessian.f32() + b * kBlock * kBlock));
  choose_scales("nvfp4_scales_hessian", cx, w, scale, scales, kHessianStepsPerElement,
                [&](const float* values, int64_t n, float ws2, uint8_t* out) {
                  nvfp4_hessian_row(values, n, ws2, prepared.data(), out);
                });
}

Nvfp4Stats nvfp4_encode(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales,
                        const Tensor& codes) {
  check_quant_source("nvfp4_encode", w);
  const int64_t rows = w.dim(0), columns = w.dim(1), blocks = columns / kBlock;
  check_scales(scales, rows, columns);
  check_codes(codes, rows, columns);
  std::vector<Nvfp4RowSums> sums(static_cast<size_t>(rows));
  for_each_row(cx, w, kStepsPerElement, [&](int64_t row, const float* values) {
    uint8_t* out = codes.u8() + row * columns / 2;
    sums[static_cast<size_t>(row)] = scale.zero
                                         ? zero_row(values, columns, out)
                                         : nvfp4_encode_row(values, blocks, scale.ws2, scales.u8() + row * blocks, out);
  });
  Nvfp4Stats stats;
  count_scales(scales, stats);
  const double unit = static_cast<double>(scale.ws2) * scale.ws2;
  for (int64_t row = 0; row < rows; ++row) {
    const Nvfp4RowSums& one = sums[static_cast<size_t>(row)];
    stats.energy += unit * one.energy;
    stats.error += unit * one.error;
    stats.max_error = std::max(stats.max_error, static_cast<double>(scale.ws2) * one.max_error);
    if (one.lost && stats.lost_rows++ == 0) stats.first_lost_row = row;
  }
  return stats;
}

Nvfp4Stats nvfp4_quantize(Context& cx, const Tensor& w, float amax, const Tensor& codes, const Tensor& scales) {
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax);
  nvfp4_scales_max(cx, w, scale, scales);
  return nvfp4_encode(cx, w, scale, scales, codes);
}

void nvfp4_dequantize(Context& cx, const Tensor& codes, const Tensor& scales, float ws2, const Tensor& y) {
  require_cpu("nvfp4_dequantize", y);
  NIBBLE_CHECK(y.rank() == 2);
  const int64_t rows = y.dim(0), columns = y.dim(1), blocks = columns / kBlock;
  check_scales(scales, rows, columns);
  check_codes(codes, rows, columns);
  std::array<float, 16> value_of;
  for (uint8_t code = 0; code < 16; ++code) value_of[code] = e2m1_to_f32(code);
  float* out = y.f32();
  cx.pool.parallel_for(rows, row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin * blocks; block < end * blocks; ++block) {
      const float step = nvfp4_step(scales.u8()[block], ws2);
      const uint8_t* packed = codes.u8() + block * kBlock / 2;
      for (int64_t j = 0; j < kBlock / 2; ++j) {
        out[block * kBlock + 2 * j] = mul_rn(value_of[packed[j] & 15], step);
        out[block * kBlock + 2 * j + 1] = mul_rn(value_of[packed[j] >> 4], step);
      }
    }
  });
}

void nvfp4_fake(Context& cx, const Tensor& x, Nvfp4TensorScale scale, const Tensor& y) {
  check_quant_source("nvfp4_fake", x);
  NIBBLE_CHECK(y.shape() == x.shape() && x.dim(1) % kBlock == 0);
  const int64_t columns = x.dim(1);
  float* out = y.f32();
  if (scale.zero) {
    std::fill_n(out, y.elements(), 0.0f);
    return;
  }
  for_each_row(cx, x, kStepsPerElement, [&](int64_t row, const float* values) {
    nvfp4_fake_row(values, columns / kBlock, scale.ws2, out + row * columns);
  });
}

}  // namespace nibble::ops

// Loops over blocks of 16 that the compiler vectorizes; each calls the scalar rules of tensor/numeric.h.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/quant/nvfp4.h"

namespace nibble::ops {
namespace {

constexpr int64_t kBlock = kNvfp4Block;
constexpr int32_t kInfinityBits = 0x7F800000;

// Elements that one thread takes at a time: long enough to hide the hand-over, short enough to balance.
constexpr int64_t kElementsPerRange = 1 << 16;

int64_t rows_per_range(int64_t columns) {
  return std::max<int64_t>(1, kElementsPerRange / std::max<int64_t>(columns, 1));
}

template <class Word, class Decode>
void load_words(const std::byte* source, int64_t n, float* out, Decode decode) {
  for (int64_t i = 0; i < n; ++i) {
    Word word;
    std::memcpy(&word, source + static_cast<size_t>(i) * sizeof(Word), sizeof(Word));
    out[i] = decode(word);
  }
}

// Elements [begin, begin + n) in row-major order, n <= 16.
void load(const Tensor& w, int64_t begin, int64_t n, float* out) {
  const auto* source = static_cast<const std::byte*>(w.raw()) + static_cast<size_t>(begin) * size_of(w.dtype());
  switch (w.dtype()) {
    case DType::f32:
      return load_words<float>(source, n, out, [](float x) { return x; });
    case DType::bf16:
      return load_words<uint16_t>(source, n, out, bf16_to_f32);
    default:
      return load_words<uint16_t>(source, n, out, f16_to_f32);
  }
}

// Magnitudes compare like their bit patterns, and anything not finite lies at or above the pattern of infinity.
int32_t magnitude_bits(const float* w, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<int32_t>(f32_bits(w[i]) & 0x7FFFFFFF));
  return largest;
}

float block_amax(const float* w) {
  return f32_from_bits(static_cast<uint32_t>(magnitude_bits(w, kBlock)));
}

void pack(const int32_t* code, uint8_t* packed) {
  for (int64_t j = 0; j < kBlock / 2; ++j) packed[j] = static_cast<uint8_t>(code[2 * j + 1] << 4 | code[2 * j]);
}

struct RowStats {
  int64_t floor_blocks = 0, low_blocks = 0, top_blocks = 0;
  bool lost = false;
  double energy = 0, error = 0;
};

// Codes and statistics of one row. Squares are summed per lane and then over the lanes, so the order is fixed.
RowStats encode_row(const Tensor& w, int64_t row, Nvfp4TensorScale scale, const uint8_t* scales, uint8_t* codes) {
  const int64_t columns = w.dim(1);
  RowStats stats;
  double energy[kBlock] = {}, error[kBlock] = {};
  int32_t any_code = 0, any_weight = 0;
  for (int64_t block = 0; block < columns / kBlock; ++block) {
    float value[kBlock];
    int32_t code[kBlock];
    load(w, row * columns + block * kBlock, kBlock, value);
    const float step = nvfp4_step(scales[block], scale.ws2);
    for (int64_t i = 0; i < kBlock; ++i) code[i] = scale.zero ? 0 : nvfp4_code(value[i], step);
    for (int64_t i = 0; i < kBlock; ++i) {
      const double difference = static_cast<double>(nvfp4_value(static_cast<uint8_t>(code[i]), step)) - value[i];
      energy[i] += static_cast<double>(value[i]) * value[i];
      error[i] += difference * difference;
      any_code |= code[i] & 7;
    }
    any_weight |= magnitude_bits(value, kBlock);
    pack(code, codes + block * kBlock / 2);
    stats.floor_blocks += scales[block] == 0x01;
    stats.low_blocks += scales[block] < 0x08;
    stats.top_blocks += scales[block] == kE4m3MaxByte;
  }
  stats.lost = any_weight != 0 && any_code == 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    stats.energy += energy[i];
    stats.error += error[i];
  }
  return stats;
}

void check_quantized(const Tensor& codes, const Tensor& scales, int64_t rows, int64_t columns) {
  NIBBLE_CHECK(columns % kBlock == 0);
  NIBBLE_CHECK(codes.dtype() == DType::u8 && codes.shape() == Shape({rows, columns / 2}));
  NIBBLE_CHECK(scales.dtype() == DType::f8e4m3 && scales.shape() == Shape({rows, columns / kBlock}));
}

void check_source(const Tensor& w) {
  NIBBLE_CHECK(!w.device().is_cuda() && w.rank() == 2);
  NIBBLE_CHECK(w.dtype() == DType::f32 || w.dtype() == DType::bf16 || w.dtype() == DType::f16);
}

}  // namespace

TensorAmax tensor_amax(Context& cx, const Tensor& w) {
  check_source(w);
  const int64_t elements = w.elements();
  std::vector<int32_t> largest(static_cast<size_t>((elements + kElementsPerRange - 1) / kElementsPerRange));
  cx.pool.parallel_for(elements, kElementsPerRange, [&](int64_t begin, int64_t end) {
    int32_t range_largest = 0;
    float value[kBlock];
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t n = std::min(kBlock, end - i);
      load(w, i, n, value);
      range_largest = std::max(range_largest, magnitude_bits(value, n));
    }
    largest[static_cast<size_t>(begin / kElementsPerRange)] = range_largest;
  });
  TensorAmax result;
  const int32_t bits = largest.empty() ? 0 : *std::max_element(largest.begin(), largest.end());
  result.amax = f32_from_bits(static_cast<uint32_t>(bits));
  for (int64_t i = 0; bits >= kInfinityBits && result.finite(); ++i) {
    float value;
    load(w, i, 1, &value);
    if (!std::isfinite(value)) {
      result.row = i / w.dim(1);
      result.col = i % w.dim(1);
    }
  }
  return result;
}

void nvfp4_scales_max(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales) {
  check_source(w);
  const int64_t columns = w.dim(1), blocks = columns / kBlock;
  NIBBLE_CHECK(columns % kBlock == 0 && scales.dtype() == DType::f8e4m3);
  NIBBLE_CHECK(scales.shape() == Shape({w.dim(0), blocks}));
  cx.pool.parallel_for(w.dim(0), rows_per_range(columns), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin * blocks; block < end * blocks; ++block) {
      float value[kBlock];
      load(w, block * kBlock, kBlock, value);
      scales.u8()[block] = scale.zero ? kE4m3One : nvfp4_block_scale(block_amax(value), scale.ws2);
    }
  });
}

Nvfp4Stats nvfp4_encode(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales,
                        const Tensor& codes) {
  check_source(w);
  const int64_t rows = w.dim(0), columns = w.dim(1);
  check_quantized(codes, scales, rows, columns);
  std::vector<RowStats> row_stats(static_cast<size_t>(rows));
  cx.pool.parallel_for(rows, rows_per_range(columns), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      row_stats[static_cast<size_t>(row)] =
          encode_row(w, row, scale, scales.u8() + row * (columns / kBlock), codes.u8() + row * (columns / 2));
    }
  });
  Nvfp4Stats stats;
  stats.blocks = rows * (columns / kBlock);
  for (int64_t row = 0; row < rows; ++row) {
    const RowStats& one = row_stats[static_cast<size_t>(row)];
    stats.floor_blocks += one.floor_blocks;
    stats.low_blocks += one.low_blocks;
    stats.top_blocks += one.top_blocks;
    stats.energy += one.energy;
    stats.error += one.error;
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
  NIBBLE_CHECK(!y.device().is_cuda() && y.rank() == 2);
  const int64_t rows = y.dim(0), columns = y.dim(1), blocks = columns / kBlock;
  check_quantized(codes, scales, rows, columns);
  float* out = y.f32();
  cx.pool.parallel_for(rows, rows_per_range(columns), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin * blocks; block < end * blocks; ++block) {
      const float step = nvfp4_step(scales.u8()[block], ws2);
      const uint8_t* packed = codes.u8() + block * kBlock / 2;
      for (int64_t j = 0; j < kBlock / 2; ++j) {
        out[block * kBlock + 2 * j] = nvfp4_value(packed[j] & 15, step);
        out[block * kBlock + 2 * j + 1] = nvfp4_value(packed[j] >> 4, step);
      }
    }
  });
}

void nvfp4_fake(Context& cx, const Tensor& x, Nvfp4TensorScale scale, const Tensor& y) {
  check_source(x);
  NIBBLE_CHECK(y.shape() == x.shape() && x.dim(1) % kBlock == 0);
  const int64_t columns = x.dim(1), blocks = columns / kBlock;
  float* out = y.f32();
  cx.pool.parallel_for(x.dim(0), rows_per_range(columns), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin * blocks; block < end * blocks; ++block) {
      float value[kBlock];
      load(x, block * kBlock, kBlock, value);
      const float step = scale.zero ? 1 : nvfp4_step(nvfp4_block_scale(block_amax(value), scale.ws2), scale.ws2);
      for (int64_t i = 0; i < kBlock; ++i) {
        out[block * kBlock + i] = nvfp4_value(scale.zero ? 0 : nvfp4_code(value[i], step), step);
      }
    }
  });
}

}  // namespace nibble::ops

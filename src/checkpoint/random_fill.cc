#include "checkpoint/random_fill.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tensor/numeric.h"

namespace nibble::checkpoint {
namespace {

constexpr float kDeviation = 0.02f, kConvDeviation = 0.2f;

// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), by counter.
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t stream_base(uint64_t seed, uint64_t stream) {
  return mix(mix(seed + kGolden) + stream * kGolden);
}

uint64_t word(uint64_t base, int64_t i) {
  return mix(base + (static_cast<uint64_t>(i) + 1) * kGolden);
}

/// The values that a sum of two bytes stands for; the sum has variance 2 * (256^2 - 1) / 12.
template <class T>
std::array<T, 511> bell_table(float deviation) {
  std::array<T, 511> table;
  const float step = deviation / std::sqrt(2.0f * (256 * 256 - 1) / 12);
  for (int k = 0; k < 511; ++k) {
    const uint16_t value = f32_to_bf16(step * static_cast<float>(k - 255));
    if constexpr (sizeof(T) == 2) {
      table[static_cast<size_t>(k)] = value;
    } else {
      table[static_cast<size_t>(k)] = bf16_to_f32(value);
    }
  }
  return table;
}

template <class T>
void fill_bell(float deviation, uint64_t base, int64_t begin, int64_t end, T* out) {
  const std::array<T, 511> table = bell_table<T>(deviation);
  const auto pick = [&](uint64_t bits) { return table[(bits & 0xFF) + ((bits >> 8) & 0xFF)]; };
  const auto single = [&](int64_t i) { return pick(word(base, i / 4) >> (16 * (i % 4))); };
  int64_t i = begin;
  for (; i < end && i % 4 != 0; ++i) *out++ = single(i);
  for (; i + 4 <= end; i += 4, out += 4) {
    const uint64_t bits = word(base, i / 4);
    for (int k = 0; k < 4; ++k) out[k] = pick(bits >> (16 * k));
  }
  for (; i < end; ++i) *out++ = single(i);
}

/// A value of a tensor that is not bell-shaped.
float plain_value(model::TensorKind kind, uint64_t base, int64_t i) {
  switch (kind) {
    case model::TensorKind::gated_norm:
    case model::TensorKind::dt_bias:
      return 1;
    case model::TensorKind::a_log: {
      constexpr float kLow = 0.01f, kHigh = 16;
      return std::log(kLow + (kHigh - kLow) * static_cast<float>(word(base, i) >> 40) * 0x1p-24f);
    }
    default:
      return 0;
  }
}

void fill_bytes(uint64_t base, int64_t begin, int64_t end, uint8_t* out, uint8_t mask, uint8_t offset) {
  const auto byte = [&](uint64_t bits) { return static_cast<uint8_t>((bits & mask) + offset); };
  const auto single = [&](int64_t i) { return byte(word(base, i / 8) >> (8 * (i % 8))); };
  int64_t i = begin;
  for (; i < end && i % 8 != 0; ++i) *out++ = single(i);
  for (; i + 8 <= end; i += 8, out += 8) {
    const uint64_t bits = word(base, i / 8);
    for (int k = 0; k < 8; ++k) out[k] = byte(bits >> (8 * k));
  }
  for (; i < end; ++i) *out++ = single(i);
}

}  // namespace

// Codes are uniform, so a code's mean square is (0 + .25 + 1 + 2.25 + 4 + 9 + 16 + 36) / 8; the mean square of the
// eight scales 0x34..0x3B = .75, .8125, .875, .9375, 1, 1.125, 1.25, 1.375 is 1.0669.
const float kRandomTensorScale = kDeviation / std::sqrt(8.5625f * 1.0669f);

void fill_random(model::TensorKind kind, DType dtype, uint64_t seed, uint64_t stream, int64_t begin, int64_t end,
                 void* out) {
  NIBBLE_CHECK(dtype == DType::f32 || dtype == DType::bf16);
  const uint64_t base = stream_base(seed, stream);
  using model::TensorKind;
  const bool bell = kind == TensorKind::embedding || kind == TensorKind::linear || kind == TensorKind::conv;
  const float deviation = kind == TensorKind::conv ? kConvDeviation : kDeviation;
  if (bell && dtype == DType::bf16) return fill_bell(deviation, base, begin, end, static_cast<uint16_t*>(out));
  if (bell) return fill_bell(deviation, base, begin, end, static_cast<float*>(out));
  for (int64_t i = begin; i < end; ++i) {
    const float value = plain_value(kind, base, i);
    if (dtype == DType::bf16) {
      static_cast<uint16_t*>(out)[i - begin] = f32_to_bf16(value);
    } else {
      static_cast<float*>(out)[i - begin] = value;
    }
  }
}

void fill_random_codes(uint64_t seed, uint64_t stream, int64_t begin_byte, int64_t end_byte, uint8_t* out) {
  fill_bytes(stream_base(seed, stream), begin_byte, end_byte, out, 0xFF, 0);
}

void fill_random_scales(uint64_t seed, uint64_t stream, int64_t begin_byte, int64_t end_byte, uint8_t* out) {
  fill_bytes(stream_base(~seed, stream), begin_byte, end_byte, out, 7, 0x34);
}

}  // namespace nibble::checkpoint

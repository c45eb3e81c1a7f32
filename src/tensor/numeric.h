// Scalar codecs: BF16, F16, E4M3 and E2M1, and the NVFP4 rules built on them. Host and device share these functions,
// so a CPU test covers the arithmetic of every kernel. Source of the rules: docs/numerics.md.
//
// Nothing here may be compiled with fast-math, FMA contraction or flush-to-zero.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define NIBBLE_HD __host__ __device__
#else
#define NIBBLE_HD
#endif

namespace nibble {

NIBBLE_HD inline uint32_t f32_bits(float x) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(x);
#else
  return std::bit_cast<uint32_t>(x);
#endif
}

NIBBLE_HD inline float f32_from_bits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

/// fl(a / b): one correctly rounded division on either side.
NIBBLE_HD inline float div_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

/// fl(a * b), never fused with a neighbouring addition.
NIBBLE_HD inline float mul_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

/// fl(a + b), never fused with a multiplication before it.
NIBBLE_HD inline float add_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

NIBBLE_HD inline float bf16_to_f32(uint16_t x) {
  return f32_from_bits(static_cast<uint32_t>(x) << 16);
}

/// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
NIBBLE_HD inline uint16_t f32_to_bf16(float x) {
  uint32_t bits = f32_bits(x);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  bits += 0x7FFF + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}

NIBBLE_HD inline float round_to_bf16(float x) {
  return bf16_to_f32(f32_to_bf16(x));
}

// ---- F16: IEEE binary16 ----

NIBBLE_HD inline float f16_to_f32(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, magnitude = x & 0x7FFF;
  if (magnitude < 0x0400) {  // zero and subnormals: units of 2^-24
    return f32_from_bits(sign | f32_bits(static_cast<float>(magnitude) * 0x1p-24f));
  }
  if (magnitude > 0x7C00) return f32_from_bits(sign | 0x7FC00000 | (magnitude << 13));
  if (magnitude == 0x7C00) return f32_from_bits(sign | 0x7F800000);
  return f32_from_bits(sign | ((magnitude << 13) + (112u << 23)));
}

/// Round to nearest, ties to even; 65520 and above become infinite, a NaN stays a (quiet) NaN.
NIBBLE_HD inline uint16_t f32_to_f16(float x) {
  const uint32_t bits = f32_bits(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00 | ((magnitude >> 13) & 0x3FF));
  if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < 0x38800000) {  // below 2^-14; the ulp of numbers near 0.5 is the subnormal step 2^-24
    return static_cast<uint16_t>(sign | (f32_bits(f32_from_bits(magnitude) + 0.5f) - f32_bits(0.5f)));
  }
  magnitude += 0xFFF + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23)) >> 13));
}

// ---- E4M3: 4 exponent bits with bias 7, 3 mantissa bits, no infinity, 0x7F and 0xFF are NaN ----

constexpr float kE4m3Max = 448;      // 0x7E
constexpr float kE4m3Min = 0x1p-9f;  // 0x01, the subnormal step
constexpr uint8_t kE4m3One = 0x38;   // 1.0
constexpr uint8_t kE4m3MaxByte = 0x7E;
constexpr uint8_t kE4m3Nan = 0x7F;

NIBBLE_HD inline float e4m3_to_f32(uint8_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x80) << 24, magnitude = x & 0x7F;
  if (magnitude == kE4m3Nan) return f32_from_bits(sign | 0x7FC00000);
  if (magnitude < 8) return f32_from_bits(sign | f32_bits(static_cast<float>(magnitude) * kE4m3Min));
  return f32_from_bits(sign | ((magnitude << 20) + (120u << 23)));
}

/// Round to nearest, ties to the even byte. 464, the tie above the largest number, rounds down to 448; anything beyond
/// it is NaN, as the format has no infinity. Every caller in nibble clamps first.
NIBBLE_HD inline uint8_t f32_to_e4m3(float x) {
  const uint32_t bits = f32_bits(x);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80);
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x43E80000) return sign | kE4m3Nan;  // 464
  if (magnitude < 0x3C800000) {  // below 2^-6; the ulp of numbers near 2^14 is the subnormal step 2^-9
    return static_cast<uint8_t>(sign | (f32_bits(f32_from_bits(magnitude) + 0x1p14f) - f32_bits(0x1p14f)));
  }
  magnitude += 0x7FFFF + ((magnitude >> 20) & 1);
  return static_cast<uint8_t>(sign | ((magnitude - (120u << 23)) >> 20));
}

// ---- E2M1: code = sign << 3 | k, magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6 for k = 0..7; no infinity, no NaN ----

constexpr float kE2m1Max = 6;

/// Code 8 is -0.0.
NIBBLE_HD inline float e2m1_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 8) << 28, k = code & 7;
  const uint32_t magnitude = k < 2 ? f32_bits(0.5f * static_cast<float>(k)) : ((k >> 1) + 126) << 23 | (k & 1) << 22;
  return f32_from_bits(sign | magnitude);
}

/// Round to nearest, ties to the even k, saturating. The sign bit is x < 0, so -0.0 becomes 0 and -0.1 becomes 8.
/// Written with negated comparisons: NaN satisfies all of them and becomes 7.
NIBBLE_HD inline uint8_t f32_to_e2m1(float x) {
  const float a = f32_from_bits(f32_bits(x) & 0x7FFFFFFF);
  const int k = !(a <= 0.25f) + !(a < 0.75f) + !(a <= 1.25f) + !(a < 1.75f) + !(a <= 2.5f) + !(a < 3.5f) + !(a <= 5.0f);
  return static_cast<uint8_t>(k | (x < 0 ? 8 : 0));
}

// ---- NVFP4: a tensor scale ws2, a scale byte s per 16 consecutive elements, a code per element ----
//
//   ws2 = fl(G / 2688)              G = max |w| of the tensor or its fused group; 2688 = 6 * 448
//   s   = e4m3(clamp(fl(a / fl(6 * ws2)), 2^-9, 448))        a = max |w| of the block
//   d   = fl(s * ws2)
//   q   = e2m1(fl(w / d))           decoded: fl(e2m1(q) * d)

constexpr int kNvfp4Block = 16;
constexpr float kNvfp4Range = kE2m1Max * kE4m3Max;
/// For strategy `four_over_six`: scales up to 256, so that 1.5 times a scale is a scale too.
constexpr float kNvfp4RangeFourOverSix = kE2m1Max * 256;

/// A tensor whose scale would not be a normal number is stored as zero: ws2 = 1, every s = 1.0, every code 0.
struct Nvfp4TensorScale {
  float ws2 = 1;
  bool zero = true;
};

/// `range` is what amax maps to: 2688 uses all scale bytes.
NIBBLE_HD inline Nvfp4TensorScale nvfp4_tensor_scale(float amax, float range = kNvfp4Range) {
  const float ws2 = div_rn(amax, range);
  if (!(ws2 >= 0x1p-126f)) return {};
  return {ws2, false};
}

/// The block scale of strategy `max`: the block's largest magnitude lands on 6. A zero block has scale 1.0; a block too
/// small for the smallest scale gets that one, and some of its values may round to zero.
NIBBLE_HD inline uint8_t nvfp4_block_scale(float block_amax, float ws2) {
  float r = div_rn(block_amax, mul_rn(kE2m1Max, ws2));
  if (r == 0) r = 1;
  r = r < kE4m3Min ? kE4m3Min : r;
  r = r > kE4m3Max ? kE4m3Max : r;
  return f32_to_e4m3(r);
}

/// The block scale that maps the block's largest magnitude to 4 instead of 6; see strategy `four_over_six`, whose
/// tensor scale leaves room above. A zero block has scale 1.0.
NIBBLE_HD inline uint8_t nvfp4_block_scale_at_4(float block_amax, float ws2) {
  float r = div_rn(block_amax, mul_rn(kE2m1Max, ws2));
  if (r == 0) return kE4m3One;
  r = mul_rn(1.5f, r);
  r = r < kE4m3Min ? kE4m3Min : r;
  r = r > kE4m3Max ? kE4m3Max : r;
  return f32_to_e4m3(r);
}

/// The step d of a block; > 0 for s in 0x01..0x7E and ws2 >= 2^-126.
NIBBLE_HD inline float nvfp4_step(uint8_t scale, float ws2) {
  return mul_rn(e4m3_to_f32(scale), ws2);
}

NIBBLE_HD inline uint8_t nvfp4_code(float w, float step) {
  return f32_to_e2m1(div_rn(w, step));
}

NIBBLE_HD inline float nvfp4_value(uint8_t code, float step) {
  return mul_rn(e2m1_to_f32(code), step);
}

// ---- FP8: one scale per tensor or per output channel, an E4M3 byte per element ----
//
//   scale = fl(A / 448)             A = max |w| of the tensor or the channel
//   q     = e4m3(clamp(fl(w / scale), -448, 448))        decoded: fl(e4m3(q) * scale)

/// 1 for zeros, and for weights so small that the scale would not be a normal number: they become zero.
NIBBLE_HD inline float fp8_scale(float amax) {
  const float scale = div_rn(amax, kE4m3Max);
  return scale >= 0x1p-126f ? scale : 1;
}

/// NaN stays NaN.
NIBBLE_HD inline uint8_t fp8_code(float w, float scale) {
  float x = div_rn(w, scale);
  x = x < -kE4m3Max ? -kE4m3Max : x;
  x = x > kE4m3Max ? kE4m3Max : x;
  return f32_to_e4m3(x);
}

NIBBLE_HD inline float fp8_value(uint8_t code, float scale) {
  return mul_rn(e4m3_to_f32(code), scale);
}

}  // namespace nibble

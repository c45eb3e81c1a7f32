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

NIBBLE_HD inline float bf16_to_f32(uint16_t x) { return f32_from_bits(static_cast<uint32_t>(x) << 16); }

/// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
NIBBLE_HD inline uint16_t f32_to_bf16(float x) {
  uint32_t bits = f32_bits(x);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  bits += 0x7FFF + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}

NIBBLE_HD inline float round_to_bf16(float x) { return bf16_to_f32(f32_to_bf16(x)); }

}  // namespace nibble

// The vector forms below restate rules of tensor/numeric.h for 16 elements at a time; the test holds them to the scalar
// rules bit by bit on every SIMD target. Included once per SIMD target, like simd-inl.h.
#if defined(NIBBLE_OPS_QUANT_NVFP4_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_QUANT_NVFP4_INL_H_
#undef NIBBLE_OPS_QUANT_NVFP4_INL_H_
#else
#define NIBBLE_OPS_QUANT_NVFP4_INL_H_
#endif

#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

constexpr int64_t kBlock = kNvfp4Block;

using I = hn::RebindToSigned<D>;
using VI = hn::Vec<I>;

// Magnitudes compare like their bit patterns, and anything not finite lies at or above the pattern of infinity.
HWY_INLINE VI magnitude_bits(V w) {
  return hn::BitCast(I(), hn::Abs(w));
}

HWY_INLINE float block_amax(const float* w) {
  VI largest = hn::Zero(I());
  for (int64_t i = 0; i < kBlock; i += kLanes) largest = hn::Max(largest, magnitude_bits(hn::LoadU(D(), w + i)));
  return f32_from_bits(static_cast<uint32_t>(hn::GetLane(hn::MaxOfLanes(I(), largest))));
}

/// e2m1_to_f32(f32_to_e2m1(x)). The grid has steps of 1/2 below 2, of 1 below 4, of 2 below 6: those are the ulps of
/// 2^22, 2^23 and 2^24, so adding and subtracting that power rounds to the grid, ties to the even code.
HWY_INLINE V round_to_e2m1(V x) {
  const V a = hn::Abs(x), limit = hn::Set(D(), kE2m1Max);
  const V clamped = hn::IfThenElse(hn::Lt(a, limit), a, limit);  // NaN becomes the limit
  const VI exponent = hn::And(hn::BitCast(I(), hn::Max(clamped, hn::Set(D(), 1.0f))), hn::Set(I(), 0x7F800000));
  const V power = hn::BitCast(D(), hn::Add(exponent, hn::Set(I(), 22 << 23)));
  const V magnitude = hn::Sub(hn::Add(clamped, power), power);
  return hn::Or(magnitude, hn::IfThenElseZero(hn::Lt(x, hn::Zero(D())), hn::SignBit(D())));
}

/// The code of a value of the grid. The upper bits of a float count the codes from 1 on; 0.5 and 0 stand apart.
HWY_INLINE VI code_of(V value) {
  const VI bits = hn::BitCast(I(), hn::Abs(value));
  const VI from_one_on = hn::Sub(hn::ShiftRight<22>(bits), hn::Set(I(), 252));
  const VI at_least = hn::IfThenElseZero(hn::Gt(bits, hn::Zero(I())), hn::Set(I(), 1));
  const VI sign = hn::And(hn::ShiftRight<28>(hn::BitCast(I(), value)), hn::Set(I(), 8));
  return hn::Or(hn::Max(from_one_on, at_least), sign);
}

// Two codes per byte, the even one low.
HWY_INLINE void pack(const VI* code, uint8_t* packed) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t j = 0; j < kBlock / 2; ++j) {
    packed[j] = static_cast<uint8_t>(hn::GetLane(code[2 * j + 1]) << 4 | hn::GetLane(code[2 * j]));
  }
#else
  const hn::Repartition<uint64_t, D> d64;
  for (int64_t i = 0; i < kVectorsPer16; ++i) {
    const auto pairs = hn::BitCast(d64, code[i]);
    const auto bytes = hn::Or(pairs, hn::ShiftRight<28>(pairs));
    hn::StoreU(hn::TruncateTo(hn::Rebind<uint8_t, decltype(d64)>(), bytes), hn::Rebind<uint8_t, decltype(d64)>(),
               packed + i * kLanes / 2);
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif

// The vector forms below restate rules of tensor/numeric.h for 16 elements at a time; the test holds them to the scalar
// rules bit by bit on every SIMD target. What happens once per block, the choice of a scale, calls the scalar rule.
#include "ops/quant/nvfp4_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quant/nvfp4_rows_cpu.cc"
#include "hwy/foreach_target.h"
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

void scales_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  for (int64_t b = 0; b < blocks; ++b) scales[b] = nvfp4_block_scale(block_amax(w + b * kBlock), ws2);
}

Nvfp4RowSums encode_row(const float* w, int64_t blocks, float ws2, const uint8_t* scales, uint8_t* codes) {
  V energy[kVectorsPer16], error[kVectorsPer16];
  for (int64_t i = 0; i < kVectorsPer16; ++i) energy[i] = error[i] = hn::Zero(D());
  VI any_code = hn::Zero(I()), any_weight = hn::Zero(I());
  for (int64_t b = 0; b < blocks; ++b) {
    VI code[kVectorsPer16];
    const float scale = e4m3_to_f32(scales[b]);
    const V step = hn::Set(D(), mul_rn(scale, ws2)), weight = hn::Set(D(), scale * scale);
    for (int64_t i = 0; i < kVectorsPer16; ++i) {
      const V x = hn::LoadU(D(), w + b * kBlock + i * kLanes);
      const V ratio = hn::Div(x, step), value = round_to_e2m1(ratio);
      const V difference = hn::Sub(value, ratio);
      code[i] = code_of(value);
      // No fused multiply-add: the sums shall not depend on the target either.
      energy[i] = hn::Add(energy[i], hn::Mul(weight, hn::Mul(ratio, ratio)));
      error[i] = hn::Add(error[i], hn::Mul(weight, hn::Mul(difference, difference)));
      any_code = hn::Or(any_code, code[i]);
      any_weight = hn::Or(any_weight, magnitude_bits(x));
    }
    pack(code, codes + b * kBlock / 2);
  }
  HWY_ALIGN float lanes[2][kBlock];
  HWY_ALIGN int32_t any[2][kLanes];
  for (int64_t i = 0; i < kVectorsPer16; ++i) {
    hn::Store(energy[i], D(), lanes[0] + i * kLanes);
    hn::Store(error[i], D(), lanes[1] + i * kLanes);
  }
  hn::Store(any_code, I(), any[0]);
  hn::Store(any_weight, I(), any[1]);
  Nvfp4RowSums sums;
  for (int64_t i = 0; i < kBlock; ++i) {
    sums.energy += lanes[0][i];
    sums.error += lanes[1][i];
  }
  int32_t code_bits = 0, weight_bits = 0;
  for (int64_t i = 0; i < kLanes; ++i) {
    code_bits |= any[0][i];
    weight_bits |= any[1][i];
  }
  sums.lost = weight_bits != 0 && (code_bits & 7) == 0;
  return sums;
}

void fake_row(const float* x, int64_t blocks, float ws2, float* y) {
  for (int64_t b = 0; b < blocks; ++b) {
    const V step = hn::Set(D(), nvfp4_step(nvfp4_block_scale(block_amax(x + b * kBlock), ws2), ws2));
    for (int64_t i = b * kBlock; i < (b + 1) * kBlock; i += kLanes) {
      hn::StoreU(hn::Mul(round_to_e2m1(hn::Div(hn::LoadU(D(), x + i), step)), step), D(), y + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(scales_row);
HWY_EXPORT(encode_row);
HWY_EXPORT(fake_row);

}  // namespace

void nvfp4_scales_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  HWY_DYNAMIC_DISPATCH(scales_row)(w, blocks, ws2, scales);
}

Nvfp4RowSums nvfp4_encode_row(const float* w, int64_t blocks, float ws2, const uint8_t* scales, uint8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(encode_row)(w, blocks, ws2, scales, codes);
}

void nvfp4_fake_row(const float* x, int64_t blocks, float ws2, float* y) {
  HWY_DYNAMIC_DISPATCH(fake_row)(x, blocks, ws2, y);
}

}  // namespace nibble::ops
#endif

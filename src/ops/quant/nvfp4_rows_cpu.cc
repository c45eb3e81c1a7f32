// What happens once per block, the choice of a scale, calls the scalar rule.
#include "ops/quant/nvfp4_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quant/nvfp4_rows_cpu.cc"
#include "hwy/foreach_target.h"
#include "ops/quant/nvfp4-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

void scales_row(const float* w, int64_t blocks, float ws2, uint8_t* scales) {
  for (int64_t b = 0; b < blocks; ++b) scales[b] = nvfp4_block_scale(block_amax(w + b * kBlock), ws2);
}

Nvfp4RowSums encode_row(const float* w, int64_t blocks, float ws2, const uint8_t* scales, uint8_t* codes) {
  V energy[kVectorsPer16], error[kVectorsPer16];
  for (int64_t i = 0; i < kVectorsPer16; ++i) energy[i] = error[i] = hn::Zero(D());
  V worst = hn::Zero(D());
  VI any_code = hn::Zero(I()), any_weight = hn::Zero(I());
  for (int64_t b = 0; b < blocks; ++b) {
    VI code[kVectorsPer16];
    const float scale = e4m3_to_f32(scales[b]);
    const V step = hn::Set(D(), mul_rn(scale, ws2)), factor = hn::Set(D(), scale), weight = hn::Set(D(), scale * scale);
    for (int64_t i = 0; i < kVectorsPer16; ++i) {
      const V x = hn::LoadU(D(), w + b * kBlock + i * kLanes);
      const V ratio = hn::Div(x, step), value = round_to_e2m1(ratio);
      const V difference = hn::Sub(value, ratio);
      code[i] = code_of(value);
      // No fused multiply-add: the sums shall not depend on the target either.
      energy[i] = hn::Add(energy[i], hn::Mul(weight, hn::Mul(ratio, ratio)));
      error[i] = hn::Add(error[i], hn::Mul(weight, hn::Mul(difference, difference)));
      worst = hn::Max(worst, hn::Mul(factor, hn::Abs(difference)));
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
  sums.max_error = hn::GetLane(hn::MaxOfLanes(D(), worst));
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

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/parallel.h"
#include "quantize/signround.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kBlock = kNvfp4Block;
constexpr float kOffset = 0.5f, kFactorLow = 0.5f, kFactorHigh = 1.5f;

float sign(float x) {
  return static_cast<float>((x > 0) - (x < 0));
}

bool is_zero(const float* w) {
  return std::all_of(w, w + kBlock, [](float x) { return x == 0; });
}

}  // namespace

float signround_gradient(const float* w, const float* v, const float* q, float step, float unit, const float* g,
                         float* dv) {
  float dm = 0;
  for (int64_t i = 0; i < kBlock; ++i) {
    const float scaled = div_rn(w[i], step);
    const bool inside = std::fabs(scaled + v[i]) <= kE2m1Max;
    dv[i] = inside ? g[i] * step : 0;
    dm += g[i] * (q[i] - (inside ? scaled : 0));
  }
  return dm * unit;
}

SignroundLinear::SignroundLinear(const ops::Linear& codes, OwnedTensor start) : linear_(codes), w_(std::move(start)) {
  NIBBLE_CHECK(codes.format == ops::WeightFormat::nvfp4 && w_.view.shape() == Shape({codes.out, codes.in}));
  v_ = OwnedTensor(DType::f32, {codes.out, codes.in});
  m_ = OwnedTensor(DType::f32, {codes.out, codes.in / kBlock});
  std::ranges::fill(m_.view.f32_span(), 1.0f);
  gradient_ = OwnedTensor(DType::f32, {codes.out, codes.in});
  const uint8_t* scales = codes.block_scale.u8();
  first_scales_.assign(scales, scales + codes.block_scale.elements());
  keep();
}

void SignroundLinear::keep() {
  const uint8_t *codes = linear_.weight.u8(), *scales = linear_.block_scale.u8();
  kept_codes_.assign(codes, codes + linear_.weight.elements());
  kept_scales_.assign(scales, scales + linear_.block_scale.elements());
}

void SignroundLinear::restore() const {
  std::ranges::copy(kept_codes_, linear_.weight.u8());
  std::ranges::copy(kept_scales_, linear_.block_scale.u8());
}

void SignroundLinear::step(Context& cx, const Rates& rates) {
  cx.pool.parallel_for(linear_.out, ops::row_grain(linear_.in * 4), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) step_row(row, rates);
  });
}

void SignroundLinear::step_row(int64_t row, const Rates& rates) {
  for (int64_t b = row * linear_.in / kBlock; b < (row + 1) * linear_.in / kBlock; ++b) {
    const float* const w = w_.view.f32() + b * kBlock;
    float *const v = v_.view.f32() + b * kBlock, *const g = gradient_.view.f32() + b * kBlock;
    float& m = m_.view.f32()[b];
    uint8_t* const codes = linear_.weight.u8() + b * kBlock / 2;
    uint8_t& scale = linear_.block_scale.u8()[b];
    if (!is_zero(w)) {
      float q[kBlock], dv[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) q[i] = e2m1_to_f32(static_cast<uint8_t>(codes[i / 2] >> (i % 2 * 4) & 15));
      const float first = e4m3_to_f32(first_scales_[static_cast<size_t>(b)]), wanted = m * first;
      const float unit = wanted >= kE4m3Min && wanted <= kE4m3Max ? first * linear_.tensor_scale : 0;
      const float dm = signround_gradient(w, v, q, nvfp4_step(scale, linear_.tensor_scale), unit, g, dv);

      m = std::clamp(m - rates.scale * sign(dm), kFactorLow, kFactorHigh);
      scale = f32_to_e4m3(std::clamp(m * first, kE4m3Min, kE4m3Max));
      const float step = nvfp4_step(scale, linear_.tensor_scale);
      uint8_t code[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) {
        v[i] = std::clamp(v[i] - rates.offset * sign(dv[i]), -kOffset, kOffset);
        code[i] = f32_to_e2m1(div_rn(w[i], step) + v[i]);
      }
      for (int64_t j = 0; j < kBlock / 2; ++j) codes[j] = static_cast<uint8_t>(code[2 * j + 1] << 4 | code[2 * j]);
    }
    for (int64_t i = 0; i < kBlock; ++i) g[i] *= rates.momentum;
  }
}

}  // namespace nibble::quantize

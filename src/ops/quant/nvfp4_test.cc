#include "ops/quant/nvfp4.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "tests/support/targets.h"

namespace nibble::ops {
namespace {

// A quantized tensor with its own memory.
struct Quantized {
  OwnedTensor codes, scales;
  float ws2 = 1;
  Nvfp4Stats stats;

  Quantized(int64_t rows, int64_t columns)
      : codes(DType::u8, {rows, columns / 2}), scales(DType::f8e4m3, {rows, columns / kNvfp4Block}) {}

  std::string packed_hex() const { return hex(codes.view); }
  std::string scales_hex() const { return hex(scales.view); }
  uint8_t code(int64_t i) const { return (codes.view.u8()[i / 2] >> (i % 2 * 4)) & 15; }

  static std::string hex(const Tensor& bytes) {
    std::string text;
    for (int64_t i = 0; i < bytes.elements(); ++i) text += fmt::format("{:02x}", bytes.u8()[i]);
    return text;
  }
};

class Nvfp4 : public testing::Test {
 protected:
  Quantized quantize(const Tensor& w, float amax) {
    Quantized q(w.dim(0), w.dim(1));
    q.ws2 = nvfp4_tensor_scale(amax).ws2;
    q.stats = nvfp4_quantize(cx, w, amax, q.codes.view, q.scales.view);
    return q;
  }
  Quantized quantize(const Tensor& w) { return quantize(w, tensor_amax(cx, w).amax); }

  OwnedTensor dequantize(const Quantized& q) {
    OwnedTensor y(DType::f32, {q.codes.view.dim(0), q.codes.view.dim(1) * 2});
    nvfp4_dequantize(cx, q.codes.view, q.scales.view, q.ws2, y.view);
    return y;
  }

  ThreadPool pool{2};
  Context cx{pool};
};

OwnedTensor tensor(int64_t rows, const std::vector<float>& values) {
  OwnedTensor t(DType::f32, {rows, static_cast<int64_t>(values.size()) / rows});
  std::copy(values.begin(), values.end(), t.view.f32());
  return t;
}

OwnedTensor to_bf16(const Tensor& w) {
  OwnedTensor t(DType::bf16, w.shape());
  for (int64_t i = 0; i < w.elements(); ++i) t.view.bf16()[i] = f32_to_bf16(w.f32()[i]);
  return t;
}

// Rows whose size spans twelve powers of two, so that every kind of scale byte occurs.
OwnedTensor wide_range(int64_t rows, int64_t columns, uint64_t seed) {
  OwnedTensor t(DType::f32, {rows, columns});
  Rng rng(seed);
  for (int64_t r = 0; r < rows; ++r) {
    const float size = std::exp2(-12.0f * static_cast<float>(r) / static_cast<float>(rows));
    for (int64_t c = 0; c < columns; ++c) t.view.f32()[r * columns + c] = size * rng.normal();
  }
  return t;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

uint64_t fnv1a(const void* data, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3;
  return hash;
}
uint64_t fnv1a(const Tensor& t) {
  return fnv1a(t.raw(), t.bytes());
}

TEST_F(Nvfp4, VectorG1CoversEveryKindOfBlock) {
  std::vector<float> w = {5.25f,   -5.25f,  .4375f, .21875f, .21876f, .65625f, 1.09375f, 1.53125f,
                          2.1875f, 3.0625f, 4.375f, 4.3751f, -.1f,    0,       -0.0f,    -2.1875f,
                          1,       -1,      .5f,    .25f,    .125f,   .0625f,  .75f,     .875f,
                          .9375f,  -.3f,    .3f,    .2f,     -.2f,    .04f,    -.04f,    0};
  w.resize(48);
  w.insert(w.end(), {1e-6f, -1e-6f, 5e-7f});
  w.resize(64);
  w.insert(w.end(), {2.2888184e-5f, 1e-5f, 6e-6f, 3e-6f});
  w.resize(80);
  const OwnedTensor t = tensor(1, w);
  const Quantized q = quantize(t.view, 5.25f);
  EXPECT_EQ(f32_bits(q.ws2), 0x3B000000u);
  EXPECT_EQ(q.scales_hex(), "7e6b380101");
  EXPECT_EQ(q.packed_hex(),
            "f7012142647608c0"
            "f7351176b7230a08"
            "0000000000000000"
            "9100000000000000"
            "5723000000000000");
  const std::vector<float> expected = {
      5.25f,  -5.25f,   .4375f,   0,          .4375f,    .875f,    .875f,     1.75f,    1.75f,     3.5f,      3.5f,
      5.25f,  -0.0f,    0,        0,          -1.75f,    1.03125f, -1.03125f, .515625f, .2578125f, .0859375f, .0859375f,
      .6875f, 1.03125f, 1.03125f, -.2578125f, .2578125f, .171875f, -.171875f, 0,        -0.0f,     0};
  const OwnedTensor y = dequantize(q);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(f32_bits(y.view.f32()[i]), f32_bits(expected[i])) << i;
  EXPECT_EQ(y.view.f32()[48], 0x1p-19f);
  EXPECT_EQ(y.view.f32()[64], 6 * 0x1p-18f);
  EXPECT_EQ(q.stats.blocks, 5);
  EXPECT_EQ(q.stats.floor_blocks, 2);
  EXPECT_EQ(q.stats.low_blocks, 2);
  EXPECT_EQ(q.stats.top_blocks, 1);
  EXPECT_EQ(q.stats.lost_rows, 0);
}

TEST_F(Nvfp4, VectorG2) {
  const OwnedTensor w = tensor(1, {10, 8, 7.5f, 5.1875f, -5, 4.90625f, -7.3125f, 2.5f, 1.203125f, -.6015625f, 3.296875f,
                                   9.1875f, -8.375f, 6.09375f, .10009766f, -1.8984375f});
  const OwnedTensor w16 = to_bf16(w.view);
  for (const Tensor& source : {w.view, w16.view}) {
    const Quantized q = quantize(source, 16);
    EXPECT_EQ(f32_bits(q.ws2), 0x3BC30C31u);
    EXPECT_EQ(q.scales_hex(), "79");
    EXPECT_EQ(q.packed_hex(), "67565d3e91746ea0");
    EXPECT_NEAR(q.stats.relative_error(), .0114037, 1e-7);
  }
}

// The generator of G3: four uniforms summed in order make one nearly normal number.
struct Lcg {
  uint32_t state;
  float uniform() {
    state = state * 1664525 + 1013904223;
    return static_cast<float>(state >> 8) * 0x1p-24f - .5f;
  }
  float normal() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += uniform();
    return sum;
  }
};

TEST_F(Nvfp4, VectorG3) {
  OwnedTensor w(DType::bf16, {64, 256});
  Lcg lcg{12345};
  for (int64_t i = 0; i < w.view.elements(); ++i) w.view.bf16()[i] = f32_to_bf16(lcg.normal() * .05f);
  ASSERT_EQ(w.view.bf16()[0], 0xBD21);
  ASSERT_EQ(fnv1a(w.view), 0x34e6204359f42ca5u);
  ASSERT_EQ(tensor_amax(cx, w.view).amax, .09375f);

  const Quantized own = quantize(w.view);
  EXPECT_EQ(f32_bits(own.ws2), 0x38124925u);
  EXPECT_EQ(fnv1a(own.codes.view), 0xa4ff07cf7a51fc64u);
  EXPECT_EQ(fnv1a(own.scales.view), 0xa4cbccc7d7bc3a7bu);
  EXPECT_EQ(own.packed_hex().substr(0, 32), "1f3267fde4678336d25467c2b254c169");
  EXPECT_EQ(own.scales_hex().substr(0, 8), "74767775");
  EXPECT_NEAR(own.stats.relative_error(), .00917076, 1e-8);

  const Quantized shared = quantize(w.view, .125f);
  EXPECT_EQ(f32_bits(shared.ws2), 0x38430C31u);
  EXPECT_EQ(fnv1a(shared.codes.view), 0xc317e7f837391ea2u);
  EXPECT_EQ(fnv1a(shared.scales.view), 0x205bdc3facf0868du);
}

TEST_F(Nvfp4, TensorsThatNoScaleCanHoldBecomeZero) {
  const float largest = 2688 * 0x1p-127f;
  std::vector<float> values(32, -0x1p-149f);
  values[5] = largest;
  const OwnedTensor w = tensor(2, values), zero = tensor(2, std::vector<float>(32, -0.0f));
  for (const Tensor& source : {w.view, zero.view}) {
    const Quantized q = quantize(source);
    EXPECT_EQ(q.ws2, 1);
    EXPECT_EQ(q.scales_hex(), "3838");
    EXPECT_EQ(q.packed_hex(), std::string(32, '0'));
    const OwnedTensor y = dequantize(q);
    for (float value : y.view.f32_span()) EXPECT_EQ(f32_bits(value), 0u);
  }
  EXPECT_EQ(quantize(w.view).stats.lost_rows, 2);
  EXPECT_EQ(quantize(zero.view).stats.lost_rows, 0);
}

TEST_F(Nvfp4, LostRowsAreCounted) {
  std::vector<float> values(64, 0);
  values[0] = 1;       // the row that sets the tensor scale
  values[32] = 1e-9f;  // below half the smallest step, (2^-9 / 2688) / 2
  const OwnedTensor w = tensor(4, values);
  const Quantized q = quantize(w.view);
  EXPECT_EQ(q.stats.lost_rows, 1);
  EXPECT_EQ(q.stats.first_lost_row, 2);
}

TEST_F(Nvfp4, AmaxFindsTheFirstElementThatIsNotFinite) {
  constexpr int64_t kRows = 100, kColumns = 2048;  // more than one range of the pool
  OwnedTensor w(DType::bf16, {kRows, kColumns});
  w.view.bf16()[kColumns + 7] = f32_to_bf16(-3);
  EXPECT_EQ(tensor_amax(cx, w.view).amax, 3);
  EXPECT_TRUE(tensor_amax(cx, w.view).finite());
  w.view.bf16()[99 * kColumns + 1] = f32_to_bf16(-std::numeric_limits<float>::infinity());
  w.view.bf16()[98 * kColumns + 2047] = 0x7FC1;
  const TensorAmax amax = tensor_amax(cx, w.view);
  EXPECT_FALSE(amax.finite());
  EXPECT_EQ(amax.row, 98);
  EXPECT_EQ(amax.col, 2047);
}

TEST_F(Nvfp4, SourcesOfEveryTypeAndAlignmentGiveTheSameBytes) {
  const OwnedTensor base = wide_range(8, 48, 3);
  OwnedTensor f32(DType::f32, base.view.shape()), f16(DType::f16, base.view.shape());
  for (int64_t i = 0; i < base.view.elements(); ++i) {
    // Multiples of 2^-8 with at most 8 significant bits are exact in all three types.
    const float x = round_to_bf16(std::ldexp(std::nearbyint(std::ldexp(base.view.f32()[i], 8)), -8));
    f32.view.f32()[i] = x;
    static_cast<uint16_t*>(f16.view.raw())[i] = f32_to_f16(x);
  }
  const OwnedTensor bf16 = to_bf16(f32.view);
  const Quantized expected = quantize(f32.view);
  std::vector<std::byte> shifted(f32.view.bytes() + 1);
  for (const Tensor& source : {f32.view, bf16.view, f16.view}) {
    std::memcpy(shifted.data() + 1, source.raw(), source.bytes());
    const Quantized q = quantize(Tensor(shifted.data() + 1, source.dtype(), source.shape()));
    EXPECT_TRUE(same_bytes(q.codes.view, expected.codes.view)) << name(source.dtype());
    EXPECT_TRUE(same_bytes(q.scales.view, expected.scales.view)) << name(source.dtype());
  }
}

TEST_F(Nvfp4, PackingIsABijection) {
  // One row holds every byte of codes under every usable scale: decode, encode with the same scales, compare.
  constexpr int64_t kScales = kE4m3MaxByte, kColumns = 512;
  Quantized q(kScales, kColumns), again(kScales, kColumns);
  q.ws2 = nvfp4_tensor_scale(0.1f).ws2;
  for (int64_t row = 0; row < kScales; ++row) {
    std::iota(q.codes.view.rows(row, row + 1).u8(), q.codes.view.rows(row, row + 1).u8() + 256, uint8_t{0});
    std::fill_n(q.scales.view.rows(row, row + 1).u8(), kColumns / kNvfp4Block, static_cast<uint8_t>(row + 1));
  }
  const OwnedTensor y = dequantize(q);
  nvfp4_encode(cx, y.view, {q.ws2, false}, q.scales.view, again.codes.view);
  for (int64_t i = 0; i < kScales * kColumns; ++i) {
    const uint8_t expected = q.code(i) == 8 ? 0 : q.code(i);  // code 8 decodes to -0.0, which is not below zero
    ASSERT_EQ(again.code(i), expected) << i;
  }
}

TEST_F(Nvfp4, EncodingDecodedValuesIsTheIdentity) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const OwnedTensor w = wide_range(64, 128, seed);
    const float amax = tensor_amax(cx, w.view).amax;
    const Quantized q = quantize(w.view, amax);
    const OwnedTensor y = dequantize(q);
    Quantized again(64, 128);
    nvfp4_encode(cx, y.view, nvfp4_tensor_scale(amax), q.scales.view, again.codes.view);
    for (int64_t i = 0; i < w.view.elements(); ++i) ASSERT_EQ(again.code(i) & 7, q.code(i) & 7);

    // With new scales, too, where the scale has its full precision.
    const Quantized requantized = quantize(y.view, amax);
    const OwnedTensor twice = dequantize(requantized);
    int64_t compared = 0;
    for (int64_t i = 0; i < w.view.elements(); ++i) {
      if (q.scales.view.u8()[i / kNvfp4Block] < 0x08) continue;
      ASSERT_EQ(twice.view.f32()[i], y.view.f32()[i]) << i;
      ++compared;
    }
    EXPECT_GT(compared, w.view.elements() / 2);
  }
}

TEST_F(Nvfp4, ErrorIsAtMostHalfAGridStep) {
  const OwnedTensor w = wide_range(64, 128, 7);
  const Quantized q = quantize(w.view);
  const OwnedTensor y = dequantize(q);
  for (int64_t i = 0; i < w.view.elements(); ++i) {
    const double step = nvfp4_step(q.scales.view.u8()[i / kNvfp4Block], q.ws2);
    const double x = std::abs(w.view.f32()[i]) / step;
    // Spacing of the grid around x; above 6 the scale was rounded down, by at most one part in 16 of the value.
    const double allowed = x <= 2 ? .25 : x <= 4 ? .5 : 1;
    EXPECT_LE(std::abs(y.view.f32()[i] - w.view.f32()[i]), allowed * step * (1 + 1e-6)) << i;
  }
}

TEST_F(Nvfp4, ScalingByAPowerOfTwoChangesOnlyTheTensorScale) {
  const OwnedTensor w = wide_range(16, 64, 11);
  const Quantized q = quantize(w.view);
  for (int k : {-20, -1, 3, 40}) {
    OwnedTensor scaled(DType::f32, w.view.shape());
    for (int64_t i = 0; i < w.view.elements(); ++i) scaled.view.f32()[i] = std::ldexp(w.view.f32()[i], k);
    const Quantized s = quantize(scaled.view);
    EXPECT_EQ(s.ws2, std::ldexp(q.ws2, k));
    EXPECT_TRUE(same_bytes(s.codes.view, q.codes.view));
    EXPECT_TRUE(same_bytes(s.scales.view, q.scales.view));
  }
}

TEST_F(Nvfp4, RowsAreIndependent) {
  constexpr int64_t kRows = 37, kColumns = 96;
  const OwnedTensor w = wide_range(kRows, kColumns, 13);
  const float amax = tensor_amax(cx, w.view).amax;
  const Quantized q = quantize(w.view, amax);
  OwnedTensor reversed(DType::f32, w.view.shape());
  for (int64_t r = 0; r < kRows; ++r) {
    std::memcpy(reversed.view.rows(kRows - 1 - r, kRows - r).raw(), w.view.rows(r, r + 1).raw(), kColumns * 4);
  }
  const Quantized backward = quantize(reversed.view, amax);
  for (int64_t r = 0; r < kRows; ++r) {
    EXPECT_TRUE(same_bytes(backward.codes.view.rows(kRows - 1 - r, kRows - r), q.codes.view.rows(r, r + 1)));
    EXPECT_TRUE(same_bytes(backward.scales.view.rows(kRows - 1 - r, kRows - r), q.scales.view.rows(r, r + 1)));
  }
  const Quantized top = quantize(w.view.rows(0, 10), amax), bottom = quantize(w.view.rows(10, kRows), amax);
  EXPECT_TRUE(same_bytes(top.codes.view, q.codes.view.rows(0, 10)));
  EXPECT_TRUE(same_bytes(bottom.codes.view, q.codes.view.rows(10, kRows)));
  EXPECT_TRUE(same_bytes(bottom.scales.view, q.scales.view.rows(10, kRows)));
}

TEST_F(Nvfp4, ThreadsDoNotChangeAnything) {
  const OwnedTensor w = wide_range(300, 512, 17);
  ThreadPool one(1), five(5);
  Context serial(one), parallel(five);
  Quantized a(300, 512), b(300, 512);
  const Nvfp4Stats sa = nvfp4_quantize(serial, w.view, 4, a.codes.view, a.scales.view);
  const Nvfp4Stats sb = nvfp4_quantize(parallel, w.view, 4, b.codes.view, b.scales.view);
  EXPECT_TRUE(same_bytes(a.codes.view, b.codes.view));
  EXPECT_EQ(sa.error, sb.error);
  EXPECT_EQ(sa.energy, sb.energy);
  EXPECT_EQ(tensor_amax(serial, w.view).amax, tensor_amax(parallel, w.view).amax);
}

// Rows that meet every boundary of the grid from both sides, every kind of scale, zeros of both signs, and more.
OwnedTensor hard_cases(float ws2) {
  constexpr int64_t kRows = 600, kColumns = 112;
  OwnedTensor w = wide_range(kRows, kColumns, 23);
  const float boundaries[] = {0, -0.0f, .25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5, 6, 0x1p-149f, 3e38f};
  Rng rng(29);
  for (int64_t row = 0; row < kRows; ++row) {
    float* values = w.view.f32() + row * kColumns;
    if (row % 3 == 0) continue;  // plain normal numbers
    const float step = nvfp4_step(static_cast<uint8_t>(1 + rng.below(kE4m3MaxByte)), ws2);
    for (int64_t i = 0; i < kColumns; ++i) {
      float x = boundaries[rng.below(row % 3 == 1 ? 9 : std::size(boundaries))] * step;
      const uint32_t direction = rng.below(3);
      if (direction != 0) x = std::nextafter(x, direction == 1 ? 3e38f : -3e38f);
      values[i] = rng.below(2) == 0 ? x : -x;
    }
  }
  return w;
}

TEST_F(Nvfp4, EveryTargetFollowsTheScalarRules) {
  const float ws2 = nvfp4_tensor_scale(0.7f).ws2;
  const OwnedTensor w = hard_cases(ws2);
  const int64_t rows = w.view.dim(0), columns = w.view.dim(1);
  Rng rng(31);
  OwnedTensor chosen(DType::f8e4m3, {rows, columns / kNvfp4Block});  // by nobody: any scale is allowed
  for (int64_t b = 0; b < chosen.view.elements(); ++b) {
    chosen.view.u8()[b] = static_cast<uint8_t>(1 + rng.below(kE4m3MaxByte));
  }
  std::vector<double> errors;
  test::for_each_target([&] {
    Quantized q(rows, columns);
    nvfp4_scales_max(cx, w.view, {ws2, false}, q.scales.view);
    OwnedTensor fake(DType::f32, w.view.shape());
    nvfp4_fake(cx, w.view, {ws2, false}, fake.view);
    for (const Tensor& scales : {q.scales.view, chosen.view}) {
      const Nvfp4Stats stats = nvfp4_encode(cx, w.view, {ws2, false}, scales, q.codes.view);
      errors.push_back(stats.error);
      for (int64_t i = 0; i < w.view.elements(); ++i) {
        const float x = w.view.f32()[i], step = nvfp4_step(scales.u8()[i / kNvfp4Block], ws2);
        ASSERT_EQ(q.code(i), nvfp4_code(x, step)) << i << ": " << x;
      }
    }
    for (int64_t b = 0; b < chosen.view.elements(); ++b) {
      float amax = 0;
      for (int64_t i = 0; i < kNvfp4Block; ++i) amax = std::max(amax, std::abs(w.view.f32()[b * kNvfp4Block + i]));
      ASSERT_EQ(q.scales.view.u8()[b], nvfp4_block_scale(amax, ws2)) << b;
      const float step = nvfp4_step(q.scales.view.u8()[b], ws2);
      for (int64_t i = b * kNvfp4Block; i < (b + 1) * kNvfp4Block; ++i) {
        const float expected = nvfp4_value(nvfp4_code(w.view.f32()[i], step), step);
        ASSERT_EQ(f32_bits(fake.view.f32()[i]), f32_bits(expected)) << i;
      }
    }
  });
  for (size_t i = 2; i < errors.size(); ++i) EXPECT_EQ(errors[i], errors[i - 2]);
}

TEST_F(Nvfp4, ErrorSumsAreThoseOfTheDecodedValues) {
  for (float size : {1e-30f, 1.0f, 1e30f}) {
    OwnedTensor w = wide_range(64, 128, 37);
    for (float& x : w.view.f32_span()) x *= size;
    const Quantized q = quantize(w.view);
    const OwnedTensor y = dequantize(q);
    double energy = 0, error = 0;
    for (int64_t i = 0; i < w.view.elements(); ++i) {
      const double x = w.view.f32()[i], difference = y.view.f32()[i] - x;
      energy += x * x;
      error += difference * difference;
    }
    EXPECT_NEAR(q.stats.energy / energy, 1, 1e-5);
    EXPECT_NEAR(q.stats.error / error, 1, 1e-5);
  }
}

TEST_F(Nvfp4, ANanActivationMakesItsBlockNan) {
  OwnedTensor x(DType::f32, {2, 32}), y(DType::f32, {2, 32});
  std::fill_n(x.view.f32(), 64, 1.0f);
  x.view.f32()[20] = std::numeric_limits<float>::quiet_NaN();
  test::for_each_target([&] {
    nvfp4_fake(cx, x.view, nvfp4_tensor_scale(1), y.view);
    for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(std::isnan(y.view.f32()[i]), 16 <= i && i < 32) << i;
  });
}

TEST_F(Nvfp4, FakeIsDequantizeAfterQuantize) {
  const OwnedTensor x = wide_range(33, 80, 19);
  const float amax = tensor_amax(cx, x.view).amax;
  for (float g : {amax, amax / 3, 0.0f}) {  // amax / 3: values beyond the calibrated range saturate
    const OwnedTensor expected = dequantize(quantize(x.view, g));
    OwnedTensor y(DType::f32, x.view.shape());
    nvfp4_fake(cx, x.view, nvfp4_tensor_scale(g), y.view);
    EXPECT_TRUE(same_bytes(y.view, expected.view)) << g;
    OwnedTensor in_place(DType::f32, x.view.shape());
    std::memcpy(in_place.view.raw(), x.view.raw(), x.view.bytes());
    nvfp4_fake(cx, in_place.view, nvfp4_tensor_scale(g), in_place.view);
    EXPECT_TRUE(same_bytes(in_place.view, expected.view)) << g;
  }
}

}  // namespace
}  // namespace nibble::ops

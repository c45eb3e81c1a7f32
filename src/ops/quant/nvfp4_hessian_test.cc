// Strategies `hessian` and `four_over_six` against all their candidates tried with the scalar rules.
#include <gtest/gtest.h>

#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

constexpr int kBlock = kNvfp4Block;

double hessian_error(const float* w, uint8_t scale, float ws2, const float* h) {
  const float step = nvfp4_step(scale, ws2);
  double e[kBlock], sum = 0;
  for (int i = 0; i < kBlock; ++i) e[i] = static_cast<double>(nvfp4_value(nvfp4_code(w[i], step), step)) - w[i];
  for (int i = 0; i < kBlock; ++i) {
    double row = h[i * kBlock + i] * e[i];
    for (int j = i + 1; j < kBlock; ++j) {
      row += (static_cast<double>(h[i * kBlock + j]) + h[j * kBlock + i]) * e[j];
    }
    sum += e[i] * row;
  }
  return sum;
}

uint8_t brute_force(const float* w, float ws2, const float* h) {
  if (std::all_of(w, w + kBlock, [](float x) { return x == 0; })) return kE4m3One;
  uint8_t best = 1;
  double smallest = hessian_error(w, 1, ws2, h);
  for (uint8_t byte = 2; byte <= kE4m3MaxByte; ++byte) {
    const double error = hessian_error(w, byte, ws2, h);
    if (error < smallest) {
      smallest = error;
      best = byte;
    }
  }
  return best;
}

// H_b of `tokens` random inputs, neighbours correlated by `rho`, with `offset` added to all of them.
void fill_hessian(Rng& rng, int tokens, float rho, float offset, float* h) {
  std::fill_n(h, kBlock * kBlock, 0.0f);
  for (int t = 0; t < tokens; ++t) {
    float x[kBlock];
    for (int k = 0; k < kBlock; ++k) x[k] = rng.normal() + (k > 0 ? rho * x[k - 1] : offset);
    for (int i = 0; i < kBlock; ++i) {
      for (int j = 0; j < kBlock; ++j) h[i * kBlock + j] += x[i] * x[j] / static_cast<float>(tokens);
    }
  }
}

void expect_brute_force(const TestTensor& w, const TestTensor& hessian, float ws2, const char* what) {
  SCOPED_TRACE(what);
  const int64_t blocks = w.view.dim(1) / kBlock;
  std::vector<uint8_t> expected;
  for (int64_t b = 0; b < w.view.elements() / kBlock; ++b) {
    expected.push_back(brute_force(w.view.f32() + b * kBlock, ws2, hessian.view.f32() + b % blocks * kBlock * kBlock));
  }
  TestContext test;
  test::for_each_target([&] {
    const TestTensor scales({w.view.dim(0), blocks}, DType::f8e4m3);
    nvfp4_scales_hessian(test.cx, w.view, {ws2, false}, hessian.view, scales.view);
    EXPECT_TRUE(scales.guards_intact());
    for (size_t b = 0; b < expected.size(); ++b) ASSERT_EQ(scales.view.u8()[b], expected[b]) << b;
  });
}

float amax_of(const TestTensor& w) {
  float amax = 0;
  for (const float x : w.values()) amax = std::max(amax, std::abs(x));
  return amax;
}

TEST(Nvfp4Hessian, EqualsBruteForceOnManyKindsOfInputs) {
  Rng rng(61);
  const TestTensor hessian({4, kBlock, kBlock});
  const auto fill = [&](const auto& one, const char* what) {
    for (int b = 0; b < 4; ++b) one(hessian.view.f32() + b * kBlock * kBlock);
    const TestTensor w = TestTensor::normal(rng, {40, 64}, .05f);
    for (int64_t i = 0; i < 64 * 10; ++i) w.view.f32()[i] *= std::exp2(-static_cast<float>(i / 64) * 2);
    for (const float g : {amax_of(w), 5 * amax_of(w), amax_of(w) / 30}) {
      expect_brute_force(w, hessian, nvfp4_tensor_scale(g).ws2, what);
    }
  };
  fill([&](float* h) { fill_hessian(rng, 200, .8f, 0, h); }, "correlated");
  fill([&](float* h) { fill_hessian(rng, 3, .5f, 0, h); }, "rank three");
  fill([&](float* h) { fill_hessian(rng, 100, .99f, 30, h); }, "a common offset");
  fill(
      [&](float* h) {
        std::fill_n(h, kBlock * kBlock, 0.0f);
        for (int i = 0; i < kBlock; ++i) h[i * kBlock + i] = std::exp(3 * rng.normal());
      },
      "diagonal");
  fill(
      [&](float* h) {
        std::fill_n(h, kBlock * kBlock, 0.0f);
        h[5 * kBlock + 5] = 1;
      },
      "one channel");
}

TEST(Nvfp4Hessian, IdentityIsStrategyMse) {
  Rng rng(67);
  const TestTensor w = TestTensor::normal(rng, {50, 160}), hessian({10, kBlock, kBlock});
  std::fill(hessian.values().begin(), hessian.values().end(), 0.0f);
  for (int64_t b = 0; b < 10; ++b) {
    for (int64_t i = 0; i < kBlock; ++i) hessian.view.f32()[(b * kBlock + i) * kBlock + i] = b == 4 ? 0 : 1;  // 4: dead
  }
  std::fill_n(w.view.f32() + 16, 16, -0.0f);
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(amax_of(w));
  const TestTensor a({50, 10}, DType::f8e4m3), b({50, 10}, DType::f8e4m3);
  TestContext one(1), three(3);
  nvfp4_scales_hessian(three.cx, w.view, scale, hessian.view, a.view);
  nvfp4_scales_mse(one.cx, w.view, scale, b.view);
  test::expect_same_bits(a.view, b.view, "scales");
  EXPECT_EQ(a.view.u8()[1], kE4m3One);
  nvfp4_scales_hessian(one.cx, w.view, {}, hessian.view, a.view);  // a tensor stored as zero
  for (int i = 0; i < 500; ++i) EXPECT_EQ(a.view.u8()[i], kE4m3One);
}

TEST(Nvfp4FourOverSix, EqualsTheTwoCandidatesByTheScalarRules) {
  Rng rng(71);
  const TestTensor w = TestTensor::normal(rng, {80, 160});
  for (int64_t row = 0; row < 80; ++row) {  // down to blocks below the smallest scale
    for (int64_t i = 0; i < 160; ++i) w.view.f32()[row * 160 + i] *= std::exp2(-static_cast<float>(row) / 4);
  }
  std::fill_n(w.view.f32() + 32, 16, 0.0f);
  const float ws2 = nvfp4_tensor_scale(amax_of(w), kNvfp4RangeFourOverSix).ws2;
  TestContext test(2);
  test::for_each_target([&] {
    const TestTensor scales({80, 10}, DType::f8e4m3);
    nvfp4_scales_four_over_six(test.cx, w.view, {ws2, false}, scales.view);
    EXPECT_TRUE(scales.guards_intact());
    int fours = 0;
    for (int64_t b = 0; b < 800; ++b) {
      const float* block = w.view.f32() + b * kBlock;
      float amax = 0;
      for (int i = 0; i < kBlock; ++i) amax = std::max(amax, std::abs(block[i]));
      const auto error = [&](uint8_t byte) {
        double sum = 0;
        for (int i = 0; i < kBlock; ++i) {
          const float step = nvfp4_step(byte, ws2);
          const double difference = static_cast<double>(nvfp4_value(nvfp4_code(block[i], step), step)) - block[i];
          sum += difference * difference;
        }
        return sum;
      };
      const uint8_t six = nvfp4_block_scale(amax, ws2), four = nvfp4_block_scale_at_4(amax, ws2);
      const uint8_t expected = error(four) < error(six) ? four : six;
      ASSERT_EQ(scales.view.u8()[b], expected) << b;
      fours += expected != six;
    }
    EXPECT_GT(fours, 100);
    EXPECT_EQ(scales.view.u8()[2], kE4m3One);
  });
}

TEST(Nvfp4FourOverSix, VectorG2) {
  const TestTensor w({1, 16});
  const float values[] = {10,        8,          7.5f,      5.1875f, -5,      4.90625f, -7.3125f,   2.5f,
                          1.203125f, -.6015625f, 3.296875f, 9.1875f, -8.375f, 6.09375f, .10009766f, -1.8984375f};
  std::copy(std::begin(values), std::end(values), w.values().begin());
  TestContext test;
  const TestTensor scales({1, 1}, DType::f8e4m3), codes({1, 8}, DType::u8);
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(16, kNvfp4RangeFourOverSix);
  EXPECT_EQ(f32_bits(scale.ws2), 0x3C2AAAABu);
  nvfp4_scales_four_over_six(test.cx, w.view, scale, scales.view);
  EXPECT_EQ(scales.view.u8()[0], 0x77);  // 240, the 4 choice
  const Nvfp4Stats stats = nvfp4_encode(test.cx, w.view, scale, scales.view, codes.view);
  const uint8_t packed[] = {0x56, 0x45, 0x4C, 0x2D, 0x81, 0x63, 0x4D, 0xA0};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(codes.view.u8()[i], packed[i]) << i;
  EXPECT_NEAR(stats.relative_error(), .00690237, 1e-8);
}

uint64_t fnv1a(const Tensor& t) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < t.bytes(); ++i) hash = (hash ^ static_cast<const uint8_t*>(t.raw())[i]) * 0x100000001b3;
  return hash;
}

TEST(Nvfp4FourOverSix, VectorG3) {
  const TestTensor w({64, 256}, DType::bf16), scales({64, 16}, DType::f8e4m3), codes({64, 128}, DType::u8);
  uint32_t state = 12345;
  for (int64_t i = 0; i < w.view.elements(); ++i) {
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525 + 1013904223;
      sum += static_cast<float>(state >> 8) * 0x1p-24f - .5f;
    }
    w.view.bf16()[i] = f32_to_bf16(sum * .05f);
  }
  TestContext test(3);
  const Nvfp4TensorScale scale = nvfp4_tensor_scale(.09375f, kNvfp4RangeFourOverSix);
  EXPECT_EQ(f32_bits(scale.ws2), 0x38800000u);
  nvfp4_scales_four_over_six(test.cx, w.view, scale, scales.view);
  const Nvfp4Stats stats = nvfp4_encode(test.cx, w.view, scale, scales.view, codes.view);
  EXPECT_EQ(fnv1a(codes.view), 0x71c4e3a00fadc9f7u);
  EXPECT_EQ(fnv1a(scales.view), 0xf0d0f64dbf26b569u);
  EXPECT_NEAR(stats.relative_error(), .00767244, 1e-8);
}

}  // namespace
}  // namespace nibble::ops

// Strategy `mse` against all 126 scale bytes tried one by one with the scalar rules.
#include <gtest/gtest.h>

#include <limits>

#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

double error_of(const float* w, uint8_t scale, float ws2) {
  const float step = nvfp4_step(scale, ws2);
  double error = 0;
  for (int i = 0; i < kNvfp4Block; ++i) {
    const double difference = static_cast<double>(nvfp4_value(nvfp4_code(w[i], step), step)) - w[i];
    error += difference * difference;
  }
  return error;
}

uint8_t brute_force(const float* w, float ws2) {
  if (std::all_of(w, w + kNvfp4Block, [](float x) { return x == 0; })) return kE4m3One;
  uint8_t best = 1;
  for (uint8_t byte = 2; byte <= kE4m3MaxByte; ++byte) {
    if (error_of(w, byte, ws2) < error_of(w, best, ws2)) best = byte;
  }
  return best;
}

void expect_brute_force(const Tensor& w, float ws2, const char* what) {
  SCOPED_TRACE(what);
  TestContext test;
  std::vector<uint8_t> expected;
  for (int64_t b = 0; b < w.elements() / kNvfp4Block; ++b) {
    expected.push_back(brute_force(w.f32() + b * kNvfp4Block, ws2));
  }
  test::for_each_target([&] {
    const TestTensor scales({w.dim(0), w.dim(1) / kNvfp4Block}, DType::f8e4m3);
    nvfp4_scales_mse(test.cx, w, {ws2, false}, scales.view);
    EXPECT_TRUE(scales.guards_intact());
    for (size_t b = 0; b < expected.size(); ++b) ASSERT_EQ(scales.view.u8()[b], expected[b]) << b;
  });
}

float amax_of(const TestTensor& w) {
  float amax = 0;
  for (const float x : w.values()) amax = std::max(amax, std::abs(x));
  return amax;
}

TEST(Nvfp4Search, EqualsBruteForceOnManyKindsOfWeights) {
  Rng rng(41);
  const auto laplace = [&] { return (rng.below(2) == 0 ? -1 : 1) * -std::log(1 - rng.uniform()); };
  const auto few_values = [&] { return (static_cast<float>(rng.below(7)) - 3) * 0.25f; };
  const auto outliers = [&] { return rng.normal() * (rng.below(20) == 0 ? 30 : 1); };
  const auto bf16 = [&] { return round_to_bf16(rng.normal() * .05f); };
  const auto sparse = [&] { return rng.below(4) == 0 ? rng.normal() : 0; };
  const auto fill = [&](const auto& draw, const char* what) {
    const TestTensor w({60, 160});
    for (float& x : w.values()) x = draw();
    const float amax = amax_of(w);
    // Its own range, a shared one that is larger, and ranges the weights exceed (frozen scales).
    for (const float g : {amax, 3.7f * amax, amax / 40, amax * 1e-6f}) {
      expect_brute_force(w.view, nvfp4_tensor_scale(g).ws2, what);
    }
  };
  fill([&] { return rng.normal(); }, "normal");
  fill(laplace, "laplace");
  fill(few_values, "few values");
  fill(outliers, "outliers");
  fill(bf16, "bf16");
  fill(sparse, "sparse");
}

TEST(Nvfp4Search, EqualsBruteForceOnSmallBlocks) {
  Rng rng(43);
  const TestTensor w({400, 48});
  for (int64_t row = 0; row < 400; ++row) {  // 40 powers of two: far below the smallest scale
    for (int64_t i = 0; i < 48; ++i) {
      w.view.f32()[row * 48 + i] = rng.normal() * std::exp2(-static_cast<float>(row) / 10);
    }
  }
  expect_brute_force(w.view, nvfp4_tensor_scale(amax_of(w)).ws2, "from 1 to 2^-40");
}

TEST(Nvfp4Search, EqualsBruteForceOnTies) {
  // Values on the boundaries of some scale's grid: many bytes have equal or nearly equal errors.
  Rng rng(47);
  const float ws2 = nvfp4_tensor_scale(0.7f).ws2,
              boundaries[] = {0, .25f, .5f, .75f, 1, 1.25f, 1.75f, 2.5f, 3.5f, 5, 6};
  const TestTensor w({600, 16});
  for (int64_t block = 0; block < 600; ++block) {
    const float step = nvfp4_step(static_cast<uint8_t>(1 + rng.below(kE4m3MaxByte)), ws2);
    for (int64_t i = 0; i < 16; ++i) {
      float x = boundaries[rng.below(std::size(boundaries))] * step;
      if (rng.below(3) == 0) x = std::nextafter(x, rng.below(2) == 0 ? 0.0f : 1.0f);
      w.view.f32()[block * 16 + i] = rng.below(2) == 0 ? x : -x;
    }
  }
  expect_brute_force(w.view, ws2, "boundaries");
}

TEST(Nvfp4Search, CornersOfTheRange) {
  const TestTensor w({6, 16});
  std::fill(w.values().begin(), w.values().end(), 0.0f);
  w.view.f32()[1 * 16] = -0.0f;
  w.view.f32()[2 * 16 + 3] = 0x1p-149f;
  w.view.f32()[3 * 16 + 5] = 3e38f;
  w.view.f32()[4 * 16 + 7] = 1;
  std::fill_n(w.view.f32() + 5 * 16, 16, -0x1p-126f);
  for (const float ws2 : {0x1p-126f, 1e-20f, 1.0f, 1e35f}) expect_brute_force(w.view, ws2, "corner");

  TestContext test;
  const TestTensor scales({6, 1}, DType::f8e4m3);
  nvfp4_scales_mse(test.cx, w.view, {}, scales.view);  // a tensor stored as zero
  for (int i = 0; i < 6; ++i) EXPECT_EQ(scales.view.u8()[i], kE4m3One);
  w.view.f32()[0] = std::numeric_limits<float>::quiet_NaN();
  nvfp4_scales_mse(test.cx, w.view, {1, false}, scales.view);  // outside the domain, and it ends
}

TEST(Nvfp4Search, VectorG2) {
  const TestTensor w({1, 16});
  const float values[] = {10,        8,          7.5f,      5.1875f, -5,      4.90625f, -7.3125f,   2.5f,
                          1.203125f, -.6015625f, 3.296875f, 9.1875f, -8.375f, 6.09375f, .10009766f, -1.8984375f};
  std::copy(std::begin(values), std::end(values), w.values().begin());
  TestContext test;
  const TestTensor scales({1, 1}, DType::f8e4m3), codes({1, 8}, DType::u8);
  nvfp4_scales_mse(test.cx, w.view, nvfp4_tensor_scale(16), scales.view);
  EXPECT_EQ(scales.view.u8()[0], 0x7D);
  const Nvfp4Stats stats = nvfp4_encode(test.cx, w.view, nvfp4_tensor_scale(16), scales.view, codes.view);
  const uint8_t packed[] = {0x56, 0x45, 0x4C, 0x2D, 0x81, 0x63, 0x4D, 0xA0};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(codes.view.u8()[i], packed[i]) << i;
  EXPECT_NEAR(stats.relative_error(), .0071081, 1e-7);
}

uint64_t fnv1a(const Tensor& t) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < t.bytes(); ++i) hash = (hash ^ static_cast<const uint8_t*>(t.raw())[i]) * 0x100000001b3;
  return hash;
}

TEST(Nvfp4Search, VectorG3) {
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
  ASSERT_EQ(fnv1a(w.view), 0x34e6204359f42ca5u);
  TestContext test(3);
  nvfp4_scales_mse(test.cx, w.view, nvfp4_tensor_scale(.09375f), scales.view);
  const Nvfp4Stats stats = nvfp4_encode(test.cx, w.view, nvfp4_tensor_scale(.09375f), scales.view, codes.view);
  EXPECT_EQ(fnv1a(codes.view), 0xe9a8ee2633fe3b4cu);
  EXPECT_EQ(fnv1a(scales.view), 0xa0f7391c9f7094fbu);
  EXPECT_NEAR(stats.relative_error(), .00680201, 1e-8);
}

TEST(Nvfp4Search, ThreadsDoNotChangeAnything) {
  Rng rng(53);
  const TestTensor w = TestTensor::normal(rng, {300, 512});
  TestContext one(1), five(5);
  const TestTensor a({300, 32}, DType::f8e4m3), b({300, 32}, DType::f8e4m3);
  nvfp4_scales_mse(one.cx, w.view, nvfp4_tensor_scale(5), a.view);
  nvfp4_scales_mse(five.cx, w.view, nvfp4_tensor_scale(5), b.view);
  test::expect_same_bits(a.view, b.view, "scales");
}

}  // namespace
}  // namespace nibble::ops

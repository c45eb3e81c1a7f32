#include "tensor/numeric.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace nibble {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float up(float x) {
  return std::nextafterf(x, kInf);
}
float down(float x) {
  return std::nextafterf(x, -kInf);
}

// Index of the nearest of ascending `values` (all >= 0), ties to the even index, beyond the last one saturating.
int nearest_even(const std::vector<double>& values, double x) {
  x = std::min(x, values.back());
  int best = 0;
  for (int k = 1; k < static_cast<int>(values.size()); ++k) {
    const double here = std::abs(x - values[static_cast<size_t>(k)]);
    const double there = std::abs(x - values[static_cast<size_t>(best)]);
    if (here < there || (here == there && k % 2 == 0)) best = k;
  }
  return best;
}

const std::vector<double> kE2m1Values = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

std::vector<double> e4m3_values() {
  std::vector<double> values;
  for (int byte = 0; byte <= kE4m3MaxByte; ++byte) {
    const int exponent = byte >> 3, mantissa = byte & 7;
    values.push_back(exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
  }
  return values;
}

// Random bit patterns plus every value's midpoint to the next and the neighbours of that midpoint.
std::vector<float> rounding_probes(const std::vector<double>& values) {
  std::vector<float> probes;
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const auto middle = static_cast<float>((values[i] + values[i + 1]) / 2);
    for (float x : {static_cast<float>(values[i]), middle, up(middle), down(middle)}) probes.push_back(x);
  }
  Rng rng(1);
  for (int i = 0; i < 200000; ++i) {
    probes.push_back(std::ldexp(rng.uniform(), static_cast<int>(rng.below(40)) - 30));
  }
  return probes;
}

TEST(Numeric, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3F80);
  EXPECT_EQ(f32_to_bf16(0x1.01p0f), 0x3F80);  // tie, even below
  EXPECT_EQ(f32_to_bf16(0x1.03p0f), 0x3F82);  // tie, even above
  EXPECT_EQ(f32_to_bf16(up(0x1.01p0f)), 0x3F81);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(kNan))));
  for (uint32_t word = 0; word < 0x10000; ++word) {
    const float x = bf16_to_f32(static_cast<uint16_t>(word));
    if (!std::isnan(x)) {
      EXPECT_EQ(f32_to_bf16(x), word);
    }
  }
}

TEST(Numeric, F16AgreesWithItsDefinition) {
  std::vector<double> values;
  for (uint32_t word = 0; word < 0x7C00; ++word) {
    const int exponent = static_cast<int>(word >> 10), mantissa = static_cast<int>(word & 0x3FF);
    values.push_back(exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
    const auto half = static_cast<uint16_t>(word);
    EXPECT_EQ(f16_to_f32(half), values.back());
    EXPECT_EQ(f32_to_f16(static_cast<float>(values.back())), word);
    EXPECT_EQ(f32_to_f16(-static_cast<float>(values.back())), word | 0x8000);
  }
  for (size_t i = 0; i + 1 < values.size(); ++i) {
    const auto middle = static_cast<float>((values[i] + values[i + 1]) / 2);
    EXPECT_EQ(f32_to_f16(middle), i % 2 == 0 ? i : i + 1);
    EXPECT_EQ(f32_to_f16(up(middle)), i + 1);
    EXPECT_EQ(f32_to_f16(down(middle)), i);
  }
  EXPECT_EQ(f32_to_f16(down(65520.0f)), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7C00);
  EXPECT_EQ(f32_to_f16(-kInf), 0xFC00);
  EXPECT_EQ(f16_to_f32(0xFC00), -kInf);
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7C01)));
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(kNan))));
}

TEST(Numeric, E4m3DecodesAndEncodesEveryByte) {
  const std::vector<double> values = e4m3_values();
  for (int byte = 0; byte <= kE4m3MaxByte; ++byte) {
    const auto b = static_cast<uint8_t>(byte);
    const auto negative = static_cast<uint8_t>(b | 0x80);
    EXPECT_EQ(e4m3_to_f32(b), values[b]);
    EXPECT_EQ(f32_bits(e4m3_to_f32(negative)), f32_bits(-static_cast<float>(values[b])));
    EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(b)), b);
    EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(negative)), negative);
  }
  EXPECT_TRUE(std::isnan(e4m3_to_f32(0x7F)));
  EXPECT_TRUE(std::isnan(e4m3_to_f32(0xFF)));
}

TEST(Numeric, E4m3RoundsToTheNearestByte) {
  const std::vector<double> values = e4m3_values();
  for (float x : rounding_probes(values)) {
    if (x > 464) continue;
    ASSERT_EQ(f32_to_e4m3(x), nearest_even(values, x)) << x;
    ASSERT_EQ(f32_to_e4m3(-x), nearest_even(values, x) | 0x80) << x;
  }
  EXPECT_EQ(f32_to_e4m3(464.0f), 0x7E);
  EXPECT_EQ(f32_to_e4m3(up(464.0f)), 0x7F);
  EXPECT_EQ(f32_to_e4m3(kInf), 0x7F);
  EXPECT_EQ(f32_to_e4m3(-kInf), 0xFF);
  EXPECT_EQ(f32_to_e4m3(kNan) & 0x7F, 0x7F);
}

TEST(Numeric, E4m3Vectors) {
  const std::pair<float, int> cases[] = {{448, 0x7E},
                                         {447, 0x7E},
                                         {432, 0x7E},
                                         {464, 0x7E},
                                         {464.1f, 0x7F},
                                         {480, 0x7F},
                                         {100, 0x6C},
                                         {85.33333f, 0x6B},
                                         {84, 0x6A},
                                         {64, 0x68},
                                         {1.1875f, 0x3A},
                                         {1.0625f, 0x38},
                                         {1, 0x38},
                                         {0x1p-6f, 0x08},
                                         {0x1p-9f, 0x01},
                                         {1.5f * 0x1p-9f, 0x02},
                                         {1.5f * 0x1p-10f, 0x01},
                                         {0x1p-10f, 0x00}};
  for (auto [x, byte] : cases) EXPECT_EQ(f32_to_e4m3(x), byte) << x;
}

TEST(Numeric, E2m1DecodesEveryCode) {
  for (uint8_t code = 0; code < 16; ++code) {
    const auto magnitude = static_cast<float>(kE2m1Values[code & 7]);
    EXPECT_EQ(f32_bits(e2m1_to_f32(code)), f32_bits(code < 8 ? magnitude : -magnitude));
  }
}

TEST(Numeric, E2m1RoundsToTheNearestCode) {
  const auto expected = [](float x) { return nearest_even(kE2m1Values, std::abs(x)) | (x < 0 ? 8 : 0); };
  for (uint32_t word = 0; word < 0x10000; ++word) {
    const float x = bf16_to_f32(static_cast<uint16_t>(word));
    if (std::isfinite(x)) {
      ASSERT_EQ(f32_to_e2m1(x), expected(x)) << x;
    }
  }
  for (float boundary : {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f}) {
    for (float x : {boundary, up(boundary), down(boundary), -boundary, -up(boundary), -down(boundary)}) {
      EXPECT_EQ(f32_to_e2m1(x), expected(x)) << x;
    }
  }
}

TEST(Numeric, E2m1Vectors) {
  const std::pair<float, int> cases[] = {
      {0, 0},       {-0.0f, 0},     {.25f, 0},  {.2500001f, 1}, {.3f, 1},        {.5f, 1},      {.6f, 1},
      {.75f, 2},    {.7499999f, 1}, {.9f, 2},   {1.25f, 2},     {1.2500001f, 3}, {1.3f, 3},     {1.75f, 4},
      {1.8f, 4},    {2.5f, 4},      {2.7f, 5},  {3.5f, 6},      {4.5f, 6},       {5, 6},        {5.0000005f, 7},
      {7, 7},       {-.1f, 8},      {-.25f, 8}, {-.75f, 0xA},   {-1.25f, 0xA},   {-1.75f, 0xC}, {-2.5f, 0xC},
      {-3.5f, 0xE}, {-5, 0xE},      {-7, 0xF},  {kInf, 7},      {-kInf, 0xF},    {kNan, 7}};
  for (auto [x, code] : cases) EXPECT_EQ(f32_to_e2m1(x), code) << x;
}

TEST(Numeric, TensorScale) {
  EXPECT_EQ(f32_bits(nvfp4_tensor_scale(16).ws2), 0x3BC30C31u);
  EXPECT_EQ(f32_bits(nvfp4_tensor_scale(16, 1536).ws2), 0x3C2AAAABu);  // the range of four_over_six
  EXPECT_EQ(nvfp4_tensor_scale(5.25f).ws2, 0x1p-9f);

  for (float amax : {0.0f, 0x1p-149f, down(2688 * 0x1p-126f)}) {
    EXPECT_TRUE(nvfp4_tensor_scale(amax).zero) << amax;
    EXPECT_EQ(nvfp4_tensor_scale(amax).ws2, 1) << amax;
  }
  const Nvfp4TensorScale smallest = nvfp4_tensor_scale(2688 * 0x1p-126f);
  EXPECT_FALSE(smallest.zero);
  EXPECT_EQ(smallest.ws2, 0x1p-126f);
  const Nvfp4TensorScale largest = nvfp4_tensor_scale(std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isfinite(nvfp4_step(kE4m3MaxByte, largest.ws2)));
}

TEST(Numeric, BlockScale) {
  const float ws2 = 0x1p-9f;
  EXPECT_EQ(nvfp4_block_scale(5.25f, ws2), 0x7E);
  EXPECT_EQ(nvfp4_block_scale(1, ws2), 0x6B);
  EXPECT_EQ(nvfp4_block_scale(1000, ws2), 0x7E);             // above the range of an activation scale: saturates
  EXPECT_EQ(nvfp4_block_scale(0, ws2), kE4m3One);            // zero block
  EXPECT_EQ(nvfp4_block_scale(1e-6f, ws2), 0x01);            // tiny block
  EXPECT_EQ(nvfp4_block_scale(0x1p-149f, 1e30f), kE4m3One);  // r underflows to zero
  for (int byte = 1; byte <= kE4m3MaxByte; ++byte) {
    EXPECT_GT(nvfp4_step(static_cast<uint8_t>(byte), 0x1p-126f), 0) << byte;
  }
}

}  // namespace
}  // namespace nibble

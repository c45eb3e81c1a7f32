#include "ops/quant/fp8.h"
#include "ops/quant/fake_inputs.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

TEST(Fp8, OneScaleForATensor) {
  const TestTensor w({2, 4}), y({2, 4}), codes({2, 4}, DType::f8e4m3);
  const float values[] = {896, -896, 2, 1.0625f, -0.0f, 0x1p-9f, 100, 0};
  std::copy(std::begin(values), std::end(values), w.values().begin());
  TestContext test;
  EXPECT_EQ(fp8_scale(896), 2);
  const Fp8Stats stats = fp8_quantize(test.cx, w.view, 2, codes.view);
  const uint8_t expected[] = {0x7E, 0xFE, 0x38, 0x30, 0x80, 0x00, 0x64, 0x00};  // two ties, to the even byte
  for (int i = 0; i < 8; ++i) EXPECT_EQ(codes.view.u8()[i], expected[i]) << i;
  fp8_dequantize(test.cx, codes.view, 2, y.view);
  const float decoded[] = {896, -896, 2, 1, -0.0f, 0, 96, 0};
  double energy = 0, error = 0;
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(f32_bits(y.values()[i]), f32_bits(decoded[i])) << i;
    energy += static_cast<double>(values[i]) * values[i];
    error += std::pow(static_cast<double>(decoded[i]) - values[i], 2);
  }
  EXPECT_EQ(stats.energy, energy);
  EXPECT_EQ(stats.error, error);
  fp8_fake(test.cx, w.view, 2, w.view);
  test::expect_same_bits(w.view, y.view, "fake");
}

TEST(Fp8, ValuesBeyondTheScaleSaturateAndNanStays) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fp8_code(1e30f, 1), 0x7E);
  EXPECT_EQ(fp8_code(-inf, 1), 0xFE);
  EXPECT_EQ(fp8_code(nan, 1) & 0x7F, 0x7F);
}

TEST(Fp8, ZerosAndTinyWeightsHaveScaleOne) {
  EXPECT_EQ(fp8_scale(0), 1);
  EXPECT_EQ(fp8_scale(0x1p-130f), 1);
  EXPECT_EQ(fp8_scale(448), 1);
  const TestTensor w({1, 16}), codes({1, 16}, DType::f8e4m3);
  std::fill(w.values().begin(), w.values().end(), 0.0f);
  TestContext test;
  const Fp8Stats stats = fp8_quantize(test.cx, w.view, fp8_scale(0), codes.view);
  EXPECT_EQ(stats.relative_error(), 0);
}

TEST(Fp8, ChannelsAreRowsOnTheirOwn) {
  Rng rng(3);
  const TestTensor w = TestTensor::normal(rng, {33, 70}, .1f);
  for (float& x : w.view.rows(5, 6).f32_span()) x *= 1000;
  for (const int threads : {1, 3}) {
    TestContext test(threads);
    const TestTensor codes({33, 70}, DType::f8e4m3), scales({33}), one({1, 70}, DType::f8e4m3), y({33, 70}), z({1, 70});
    const Fp8Stats stats = fp8_quantize_channels(test.cx, w.view, codes.view, scales.view);
    fp8_dequantize_channels(test.cx, codes.view, scales.view, y.view);
    double error = 0;
    for (int64_t row = 0; row < 33; ++row) {
      const Tensor source = w.view.rows(row, row + 1);
      float amax = 0;
      for (const float x : source.f32_span()) amax = std::max(amax, std::abs(x));
      EXPECT_EQ(scales.values()[static_cast<size_t>(row)], amax / 448);
      error += fp8_quantize(test.cx, source, amax / 448, one.view).error;
      test::expect_same_bits(codes.view.rows(row, row + 1), one.view, "row");
      fp8_dequantize(test.cx, one.view, amax / 448, z.view);
      test::expect_same_bits(y.view.rows(row, row + 1), z.view, "decoded row");
    }
    EXPECT_EQ(stats.error, error);
    EXPECT_LT(stats.relative_error(), 1.0 / 1000);
    EXPECT_TRUE(codes.guards_intact() && scales.guards_intact() && y.guards_intact());
  }
}

}  // namespace
}  // namespace nibble::ops

#include "ops/optim/squared_norm.h"

#include <gtest/gtest.h>

#include <limits>

#include "tensor/numeric.h"
#include "tests/support/op_test.h"

namespace nibble::ops {
namespace {

using test::TestContext;
using test::TestTensor;

TEST(SquaredNorm, EqualsTheSumInDouble) {
  TestContext test(2);
  Rng rng(73);
  for (const int64_t n : {1, 15, 16, 17, 4096, 4097, 100003}) {
    const TestTensor x = TestTensor::normal(rng, {n}, 1e-3f);
    TestTensor half({n}, DType::bf16);
    double expected = 0, expected_half = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float value = x.view.f32()[i];
      half.view.bf16()[i] = f32_to_bf16(value);
      const double rounded = round_to_bf16(value);
      expected += static_cast<double>(value) * value;
      expected_half += rounded * rounded;
    }
    EXPECT_NEAR(squared_norm(test.cx, x.view) / expected, 1, 1e-5) << n;
    EXPECT_NEAR(squared_norm(test.cx, half.view) / expected_half, 1, 1e-5) << n;
  }
  EXPECT_EQ(squared_norm(test.cx, TestTensor({0}).view), 0);
}

TEST(SquaredNorm, ThreadsDoNotChangeAnything) {
  Rng rng(79);
  const TestTensor x = TestTensor::normal(rng, {1000, 333});
  TestContext one(1), five(5);
  EXPECT_EQ(squared_norm(one.cx, x.view), squared_norm(five.cx, x.view));
}

TEST(SquaredNorm, SaysWhenAnElementIsNotFinite) {
  TestContext test;
  const TestTensor x({5000});
  std::fill(x.values().begin(), x.values().end(), 1.0f);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    x.view.f32()[4999] = bad;
    EXPECT_FALSE(std::isfinite(squared_norm(test.cx, x.view)));
  }
}

TEST(SquaredNorm, ClipFactor) {
  EXPECT_EQ(clip_factor(0, 1), 1);
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_FLOAT_EQ(clip_factor(4, 1), static_cast<float>(1 / (4 + 1e-6)));
}

}  // namespace
}  // namespace nibble::ops

#include "ops/quant/fake_inputs.h"

#include <limits>

#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"

namespace nibble {
namespace {

using test::TestTensor;

// Every row is what nvfp4_fake makes of it under its own scale, whatever lies beside it.
TEST(FakeInputs, RowsOfNvfp4HaveTheirOwnScales) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(111);
    TestTensor x = TestTensor::normal(rng, {37, 96});
    for (int64_t t = 0; t < 37; ++t) {
      for (int64_t i = 0; i < 96; ++i) x.view.f32()[t * 96 + i] *= std::exp2(static_cast<float>(t) - 18);
    }
    std::ranges::fill(x.view.rows(5, 6).f32_span(), 0.0f);
    TestTensor y({37, 96}), expected({37, 96});
    ops::nvfp4_fake_rows(context.cx, x.view, y.view);
    for (int64_t t = 0; t < 37; ++t) {
      const Tensor row = x.view.rows(t, t + 1);
      const Nvfp4TensorScale scale = nvfp4_tensor_scale(ops::tensor_amax(context.cx, row).amax);
      ops::nvfp4_fake(context.cx, row, scale, expected.view.rows(t, t + 1));
    }
    test::expect_same_bits(y.view, expected.view, "y");
    EXPECT_TRUE(y.guards_intact());
    ops::nvfp4_fake_rows(context.cx, x.view, x.view);
    test::expect_same_bits(x.view, y.view, "in place");
  });
}

TEST(FakeInputs, RowsKeepWhatIsNoNumber) {
  test::TestContext context;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    TestTensor x({3, 16}), y({3, 16});
    std::ranges::fill(x.values(), 1.0f);
    x.values()[20] = bad;
    ops::nvfp4_fake_rows(context.cx, x.view, y.view);
    for (size_t i = 0; i < 48; ++i) EXPECT_EQ(std::isnan(y.values()[i]), i / 16 == 1) << i;
  }
}

TEST(FakeInputs, Fp8IsE4m3UnderAScale) {
  test::TestContext context(2);
  Rng rng(112);
  constexpr float kScale = 0.0123f;
  TestTensor x = TestTensor::normal(rng, {13, 75}, 2), y({13, 75});
  x.values()[0] = 1e6f;
  x.values()[1] = -448 * kScale;
  x.values()[2] = std::numeric_limits<float>::quiet_NaN();
  x.values()[3] = -1e-9f;
  ops::fp8_fake(context.cx, x.view, kScale, y.view);
  EXPECT_EQ(y.values()[0], 448 * kScale);
  EXPECT_EQ(y.values()[1], -448 * kScale);
  EXPECT_TRUE(std::isnan(y.values()[2]));
  EXPECT_EQ(y.values()[3], 0);
  for (size_t i = 4; i < y.values().size(); ++i) {
    const float ratio = std::clamp(x.values()[i] / kScale, -448.0f, 448.0f);
    EXPECT_EQ(y.values()[i], e4m3_to_f32(f32_to_e4m3(ratio)) * kScale) << i;
    EXPECT_LE(std::abs(y.values()[i] - ratio * kScale), std::abs(x.values()[i]) / 16 + kScale * 0x1p-10f) << i;
  }
  EXPECT_TRUE(y.guards_intact());
}

}  // namespace
}  // namespace nibble

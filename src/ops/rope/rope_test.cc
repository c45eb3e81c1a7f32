#include "ops/rope/rope.h"

#include "ops/rope/turn.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/attention.h"

namespace nibble {
namespace {

using test::TestTensor;

struct Case {
  int64_t heads, size, rotary_dim, first_position;
  double theta;
};

TEST(Rope, MeetsTheOracle) {
  const std::vector<Case> cases = {{2, 32, 8, 0, 1e4},          {3, 256, 64, 5, 1e7}, {1, 256, 64, 262'000, 1e7},
                                   {2, 64, 64, 1'000'000, 1e4}, {2, 20, 10, 7, 1e4},  {2, 16, 0, 7, 1e4}};
  test::for_each_target([&] {
    test::TestContext context(2);
    Rng rng(31);
    for (const Case& c : cases) {
      for (const int64_t t : test::kTokenCounts) {
        TestTensor x = TestTensor::normal(rng, {t, c.heads, c.size}), y({t, c.heads, c.size});
        {
          const test::Unchanged unchanged{&x};
          ops::rope(context.cx, x.view, c.first_position, c.rotary_dim, c.theta, y.view);
        }
        const auto expected =
            oracle::rope(x.doubles(), static_cast<size_t>(c.heads), static_cast<size_t>(c.size),
                         static_cast<size_t>(c.first_position), static_cast<size_t>(c.rotary_dim), c.theta);
        test::expect_close(y, expected, test::kF32Op, "y");
        ops::rope(context.cx, x.view, c.first_position, c.rotary_dim, c.theta, x.view);
        test::expect_same_bits(x.view, y.view, "in place");
      }
    }
  });
}

// A rotation is its own inverse transposed: the oracle's slopes are those of a linear map, taken in one step.
TEST(RopeVjp, IsTheSlopeOfTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2), one(1);
    Rng rng(33);
    const Shape shape{5, 2, 20};
    const auto rotate = [](const auto& x) { return oracle::rope(x, 2, 20, 7, 10, 1e4); };
    TestTensor x = TestTensor::normal(rng, shape), dy = TestTensor::normal(rng, shape), dx(shape);
    {
      const test::Unchanged unchanged{&dy};
      ops::rope_vjp(context.cx, dy.view, 7, 10, 1e4, dx.view);
    }
    const auto slopes = test::complex_step({{"x", x.doubles(), {}}}, 0,
                                           [&](const auto& in) { return test::contract(dy.doubles(), rotate(in[0])); });
    test::expect_close(dx, slopes, test::kF32Op, "dx");
    ops::rope_vjp(one.cx, dy.view, 7, 10, 1e4, dy.view);
    test::expect_same_bits(dy.view, dx.view, "one thread, in place");
  });
}

TEST(RopeVjp, TurnsBackWhatRopeTurned) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(34);
    for (const int64_t t : test::kTokenCounts) {
      const TestTensor x = TestTensor::normal(rng, {t, 3, 256});
      TestTensor y({t, 3, 256});
      ops::rope(context.cx, x.view, 100'000, 64, 1e7, y.view);
      ops::rope_vjp(context.cx, y.view, 100'000, 64, 1e7, y.view);
      test::expect_close(y, x.doubles(), test::kF32Op, "x");
    }
  });
}

// The published frequencies of Qwen3.5: 1e7^(-2i/64).
TEST(Rope, HasTheFrequenciesOfTheModel) {
  test::TestContext context;
  TestTensor x({1, 1, 256}), y({1, 1, 256});
  std::ranges::fill(x.values(), 0.0f);
  std::fill_n(x.values().begin(), 32, 1.0f);
  ops::rope(context.cx, x.view, 1, 64, 1e7, y.view);
  const std::vector<std::pair<size_t, double>> known = {
      {1, 0.60429639}, {2, 0.365174127}, {8, 0.0177827941}, {16, 3.16227766e-4}, {31, 1.6548171e-7}};
  for (const auto& [i, frequency] : known) EXPECT_NEAR(std::asin(y.values()[32 + i]) / frequency, 1, 1e-6) << i;
}

// Kernels count in fractions of a turn; beside the f64 angle.
TEST(Rope, FixedPointTurnsAreTheAngles) {
  double worst = 0;
  for (const auto& [rotary_dim, theta] : {std::pair{64, 1e7}, {8, 1e4}, {256, 1e6}}) {
    for (int64_t i = 0; i < rotary_dim / 2; ++i) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / rotary_dim);
      for (const int64_t p : {0, 1, 2, 3, 5, 100, 4'095, 65'537, 262'143, 1'048'575}) {
        const auto [c, s] = ops::cos_sin(static_cast<uint64_t>(p) * ops::rope_step(i, rotary_dim, theta));
        const double angle = static_cast<double>(p) * frequency;
        worst = std::max({worst, std::abs(c - std::cos(angle)), std::abs(s - std::sin(angle))});
      }
    }
  }
  EXPECT_LT(worst, 0x1p-23);
  EXPECT_GT(worst, 0);
}

TEST(Rope, PositionIsAllThatCounts) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(32);
    TestTensor x = TestTensor::normal(rng, {200, 2, 64}), together({200, 2, 64}), alone({1, 2, 64});
    ops::rope(context.cx, x.view, 100, 32, 1e6, together.view);
    for (const int64_t t : {int64_t{0}, int64_t{63}, int64_t{199}}) {
      ops::rope(context.cx, x.view.rows(t, t + 1), 100 + t, 32, 1e6, alone.view);
      test::expect_same_bits(alone.view, together.view.rows(t, t + 1), "row");
    }
  });
}

}  // namespace
}  // namespace nibble

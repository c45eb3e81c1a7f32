#include "tests/support/oracle/norm.h"
#include "ops/norm/gated_rms_norm.h"
#include "ops/norm/l2_norm.h"
#include "ops/norm/rms_norm.h"
#include "tests/support/op_test.h"

namespace nibble {
namespace {

using test::TestTensor;

constexpr float kEps = 1e-6f;

// Widths below, at and beside whole vectors, and those of the real models.
const std::vector<int64_t> kWidths = {1, 5, 16, 31, 64, 128, 256, 1027};

TEST(RmsNorm, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(11);
    for (const int64_t n : kWidths) {
      for (const ops::Gain gain : {ops::Gain::plain, ops::Gain::one_plus}) {
        TestTensor x = TestTensor::normal(rng, {3, 5, n}, 20), w = TestTensor::normal(rng, {n}), y({3, 5, n});
        {
          const test::Unchanged unchanged{&x, &w};
          ops::rms_norm(context.cx, x.view, w.view, kEps, gain, y.view);
        }
        const auto expected = oracle::rms_norm(x.doubles(), w.doubles(), kEps, gain == ops::Gain::one_plus);
        test::expect_close(y, expected, test::kF32Op, "y");
        ops::rms_norm(context.cx, x.view, w.view, kEps, gain, x.view);
        test::expect_same_bits(x.view, y.view, "in place");
      }
    }
  });
}

TEST(RmsNorm, ZeroRowStaysZeroAndNoRowsAreFine) {
  test::for_each_target([] {
    test::TestContext context;
    TestTensor x({1, 40}), w({40}), y({1, 40}), nothing(Shape{0, 40});
    std::ranges::fill(x.values(), 0.0f);
    std::ranges::fill(w.values(), 1.0f);
    ops::rms_norm(context.cx, x.view, w.view, kEps, ops::Gain::one_plus, y.view);
    test::expect_close(y, std::vector<double>(40, 0.0), test::kExact, "y");
    ops::rms_norm(context.cx, nothing.view, w.view, kEps, ops::Gain::one_plus, nothing.view);
  });
}

TEST(L2Norm, MeetsTheOracleAndKeepsZeroRows) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(12);
    for (const int64_t n : kWidths) {
      TestTensor x = TestTensor::normal(rng, {7, 2, n}), y({7, 2, n});
      std::fill_n(x.values().begin(), n, 0.0f);
      ops::l2_norm(context.cx, x.view, kEps, y.view);
      test::expect_close(y, oracle::l2_norm(x.doubles(), static_cast<size_t>(n), kEps), test::kF32Op, "y");
      EXPECT_EQ(y.values()[0], 0.0f);
      ops::l2_norm(context.cx, x.view, kEps, x.view);
      test::expect_same_bits(x.view, y.view, "in place");
    }
  });
}

TEST(GatedRmsNorm, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(13);
    for (const int64_t n : kWidths) {
      for (const ops::Gate gate : {ops::Gate::silu, ops::Gate::sigmoid}) {
        TestTensor x = TestTensor::normal(rng, {4, 3, n}), z = TestTensor::uniform(rng, {4, 3, n}, -100, 100);
        TestTensor w = TestTensor::normal(rng, {n}), y({4, 3, n});
        {
          const test::Unchanged unchanged{&x, &z, &w};
          ops::gated_rms_norm(context.cx, x.view, z.view, w.view, kEps, gate, y.view);
        }
        const auto expected =
            oracle::gated_rms_norm(x.doubles(), z.doubles(), w.doubles(), kEps, gate == ops::Gate::silu);
        test::expect_close(y, expected, test::kF32Op, "y");
        ops::gated_rms_norm(context.cx, x.view, z.view, w.view, kEps, gate, z.view);
        test::expect_same_bits(z.view, y.view, "in the place of z");
      }
    }
  });
}

TEST(Norms, RowsDependOnNothingElse) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(14);
    TestTensor x = TestTensor::normal(rng, {500, 256}), w = TestTensor::normal(rng, {256});
    TestTensor together({500, 256}), alone({1, 256});
    ops::rms_norm(three.cx, x.view, w.view, kEps, ops::Gain::one_plus, together.view);
    for (const int64_t t : {int64_t{0}, int64_t{17}, int64_t{499}}) {
      ops::rms_norm(one.cx, x.view.rows(t, t + 1), w.view, kEps, ops::Gain::one_plus, alone.view);
      test::expect_same_bits(alone.view, together.view.rows(t, t + 1), "row");
    }
  });
}

}  // namespace
}  // namespace nibble

#include "ops/norm/gated_rms_norm.h"
#include "ops/norm/l2_norm.h"
#include "ops/norm/rms_norm.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/norm.h"

namespace nibble {
namespace {

using ops::Gain;
using ops::Gate;
using test::TestTensor;

constexpr float kEps = 1e-6f;
const std::vector<int64_t> kWidths = {1, 5, 16, 31, 128, 256, 1027};

std::vector<double> normal(Rng& rng, int64_t n) {
  return TestTensor::normal(rng, {n}).doubles();
}

TEST(NormVjp, OraclesMeetComplexStep) {
  Rng rng(111);
  const int64_t n = 7;
  const std::vector<double> x = normal(rng, 3 * n), z = normal(rng, 3 * n), w = normal(rng, n), dy = normal(rng, 3 * n);
  for (const bool one_plus : {false, true}) {
    const oracle::NormVjp vjp = oracle::rms_norm_vjp(dy, x, w, 0.01, one_plus);
    test::expect_gradients({{"x", x, vjp.dx}, {"w", w, vjp.dw}}, [&](const auto& in) {
      return test::contract(dy, oracle::rms_norm(in[0], in[1], 0.01, one_plus));
    });
  }
  const oracle::NormVjp l2 = oracle::l2_norm_vjp(dy, x, static_cast<size_t>(n), 0.01);
  test::expect_gradients({{"x", x, l2.dx}}, [&](const auto& in) {
    return test::contract(dy, oracle::l2_norm(in[0], static_cast<size_t>(n), 0.01));
  });
  for (const bool silu : {false, true}) {
    const oracle::NormVjp vjp = oracle::gated_rms_norm_vjp(dy, x, z, w, 0.01, silu);
    test::expect_gradients({{"x", x, vjp.dx}, {"z", z, vjp.dz}, {"w", w, vjp.dw}}, [&](const auto& in) {
      return test::contract(dy, oracle::gated_rms_norm(in[0], in[1], in[2], 0.01, silu));
    });
  }
}

/// dx is what a projection leaves of its terms, in narrow rows next to nothing: their size is what rounding goes by.
void expect_dx(const TestTensor& dx, const oracle::NormVjp& expected) {
  EXPECT_TRUE(dx.guards_intact());
  for (size_t i = 0; i < expected.dx.size(); ++i) {
    const double error = std::abs(static_cast<double>(dx.values()[i]) - expected.dx[i]);
    // Written so that a NaN fails.
    ASSERT_TRUE(error <= test::kF32Op.relative * expected.magnitudes[i]) << "dx[" << i << "]: error " << error;
  }
}

/// before + added, as dw must be.
std::vector<double> sum(const TestTensor& before, std::vector<double> added) {
  for (size_t i = 0; i < added.size(); ++i) added[i] += before.values()[i];
  return added;
}

TEST(RmsNormVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2), one(1);
    Rng rng(112);
    for (const int64_t n : kWidths) {
      for (const int64_t rows : {0, 1, 17, 300}) {
        for (const Gain gain : {Gain::plain, Gain::one_plus}) {
          const Shape shape{rows, n};
          TestTensor x = TestTensor::normal(rng, shape, 20), w = TestTensor::normal(rng, {n});
          const TestTensor dy = TestTensor::normal(rng, shape), before = TestTensor::normal(rng, {n});
          TestTensor dx(shape), dw = before.copy(), other_dx = dy.copy(), other_dw = before.copy();
          {
            const test::Unchanged unchanged{&dy, &x, &w};
            ops::rms_norm_vjp(context.cx, dy.view, x.view, w.view, kEps, gain, dx.view, dw.view);
          }
          const auto expected =
              oracle::rms_norm_vjp(dy.doubles(), x.doubles(), w.doubles(), kEps, gain == Gain::one_plus);
          expect_dx(dx, expected);
          test::expect_close(dw, sum(before, expected.dw), test::kF32Op, "dw");
          ops::rms_norm_vjp(one.cx, other_dx.view, x.view, w.view, kEps, gain, other_dx.view, other_dw.view);
          test::expect_same_bits(other_dx.view, dx.view, "one thread, in the place of dy");
          test::expect_same_bits(other_dw.view, dw.view, "dw of one thread");
          Tensor none;
          ops::rms_norm_vjp(context.cx, dy.view, x.view, w.view, kEps, gain, x.view, none);
          test::expect_same_bits(x.view, dx.view, "without dw, in the place of x");
        }
      }
    }
  });
}

TEST(L2NormVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2), one(1);
    Rng rng(113);
    for (const int64_t n : kWidths) {
      for (const int64_t rows : {0, 1, 17, 300}) {
        const Shape shape{rows, 2, n};
        TestTensor x = TestTensor::normal(rng, shape), dx(shape);
        const TestTensor dy = TestTensor::normal(rng, shape);
        {
          const test::Unchanged unchanged{&dy, &x};
          ops::l2_norm_vjp(context.cx, dy.view, x.view, kEps, dx.view);
        }
        const auto expected = oracle::l2_norm_vjp(dy.doubles(), x.doubles(), static_cast<size_t>(n), kEps);
        expect_dx(dx, expected);
        ops::l2_norm_vjp(one.cx, dy.view, x.view, kEps, x.view);
        test::expect_same_bits(x.view, dx.view, "one thread, in the place of x");
      }
    }
  });
}

TEST(GatedRmsNormVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2), one(1);
    Rng rng(114);
    for (const int64_t n : kWidths) {
      for (const int64_t rows : {0, 1, 5, 100}) {
        for (const Gate gate : {Gate::silu, Gate::sigmoid}) {
          const Shape shape{rows, 3, n};
          TestTensor x = TestTensor::normal(rng, shape), z = TestTensor::uniform(rng, shape, -20, 20);
          const TestTensor w = TestTensor::normal(rng, {n}), dy = TestTensor::normal(rng, shape);
          const TestTensor before = TestTensor::normal(rng, {n});
          TestTensor dx(shape), dz(shape), dw = before.copy(), other_dx = dy.copy(), other_dw = before.copy();
          {
            const test::Unchanged unchanged{&dy, &x, &z, &w};
            ops::gated_rms_norm_vjp(context.cx, dy.view, x.view, z.view, w.view, kEps, gate, dx.view, dz.view, dw.view);
          }
          const auto expected =
              oracle::gated_rms_norm_vjp(dy.doubles(), x.doubles(), z.doubles(), w.doubles(), kEps, gate == Gate::silu);
          expect_dx(dx, expected);
          test::expect_close(dz, expected.dz, test::kF32Op, "dz");
          test::expect_close(dw, sum(before, expected.dw), test::kF32Op, "dw");
          ops::gated_rms_norm_vjp(one.cx, other_dx.view, x.view, z.view, w.view, kEps, gate, other_dx.view, z.view,
                                  other_dw.view);
          test::expect_same_bits(other_dx.view, dx.view, "one thread, in the place of dy");
          test::expect_same_bits(z.view, dz.view, "one thread, in the place of z");
          test::expect_same_bits(other_dw.view, dw.view, "dw of one thread");
        }
      }
    }
  });
}

}  // namespace
}  // namespace nibble

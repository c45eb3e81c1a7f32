#include "ops/activation/add.h"
#include "ops/activation/sigmoid_gate.h"
#include "ops/activation/swiglu.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/norm.h"

namespace nibble {
namespace {

using test::TestTensor;

// Gates far beyond the range in which exp overflows.
TestTensor gates(Rng& rng, const Shape& shape) {
  TestTensor z = TestTensor::uniform(rng, shape, -120, 120);
  const auto values = z.values();
  for (size_t i = 0; i < values.size(); i += 3) values[i] *= 0.02f;
  return z;
}

template <class Op, class Formula>
void meets(const Op& op, const Formula& formula) {
  test::for_each_target([&] {
    test::TestContext context(2);
    Rng rng(21);
    for (const int64_t t : test::kTokenCounts) {
      TestTensor a = gates(rng, {t, 97}), b = TestTensor::normal(rng, {t, 97}, 3), y({t, 97});
      std::vector<double> expected;
      for (size_t i = 0; i < a.values().size(); ++i) expected.push_back(formula(a.values()[i], b.values()[i]));
      {
        const test::Unchanged unchanged{&a, &b};
        op(context.cx, a.view, b.view, y.view);
      }
      test::expect_close(y, expected, test::kF32Op, "y");
      TestTensor left = a.copy(), right = b.copy();
      op(context.cx, left.view, b.view, left.view);
      test::expect_same_bits(left.view, y.view, "in the place of the first input");
      op(context.cx, a.view, right.view, right.view);
      test::expect_same_bits(right.view, y.view, "in the place of the second input");
    }
  });
}

TEST(Swiglu, MeetsTheOracle) {
  meets(ops::swiglu, [](double gate, double up) { return gate * oracle::logistic(gate) * up; });
}

TEST(SigmoidGate, MeetsTheOracle) {
  const auto op = [](Context& cx, const Tensor& gate, const Tensor& x, Tensor& y) {
    ops::sigmoid_gate(cx, x, gate, y);
  };
  meets(op, [](double gate, double x) { return oracle::logistic(gate) * x; });
}

// Relative precision also where the sigmoid is tiny: no 1 - (1 - tiny).
TEST(SigmoidGate, IsPreciseInItsTails) {
  test::for_each_target([] {
    test::TestContext context;
    for (const float z : {-85.0f, -40.0f, -17.0f, -1e-3f, 0.0f, 1e-3f, 17.0f, 85.0f}) {
      TestTensor gate({1}), x({1}), y({1});
      gate.values()[0] = z;
      x.values()[0] = 1;
      ops::sigmoid_gate(context.cx, x.view, gate.view, y.view);
      const double expected = oracle::logistic(static_cast<double>(z));
      EXPECT_NEAR(y.values()[0] / expected, 1.0, 4 * 0x1p-23) << z;
    }
  });
}

TEST(Add, AddsIntoTheSecond) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(22);
    for (const int64_t t : test::kTokenCounts) {
      const TestTensor a = TestTensor::normal(rng, {t, 33});
      TestTensor b = TestTensor::normal(rng, {t, 33});
      std::vector<double> expected;
      for (size_t i = 0; i < a.values().size(); ++i) expected.push_back(a.values()[i] + b.values()[i]);
      ops::add(context.cx, a.view, b.view);
      test::expect_close(b, expected, test::kExact, "b");
    }
  });
}

}  // namespace
}  // namespace nibble

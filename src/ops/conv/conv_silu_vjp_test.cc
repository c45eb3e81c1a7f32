#include "ops/conv/conv_silu.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/conv_silu.h"

namespace nibble {
namespace {

using test::TestTensor;

TEST(ConvSiluVjp, OracleMeetsComplexStep) {
  Rng rng(141);
  const std::vector<double> mix = TestTensor::normal(rng, {9, 2}).doubles();
  const std::vector<double> w = TestTensor::normal(rng, {2, 4}).doubles();
  const std::vector<double> state = TestTensor::normal(rng, {3, 2}).doubles();
  const std::vector<double> dy = TestTensor::normal(rng, {9, 2}).doubles();
  const oracle::ConvVjp vjp = oracle::conv_silu_vjp(dy, mix, w, state);
  test::expect_gradients({{"mix", mix, vjp.dmix}, {"w", w, vjp.dw}}, [&](const auto& in) {
    std::decay_t<decltype(in[0])> past(state.begin(), state.end());
    return test::contract(dy, oracle::conv_silu(in[0], in[1], past));
  });
}

TEST(ConvSiluVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2), one(1);
    Rng rng(142);
    for (const int64_t channels : {1, 6, 64, 129, 300}) {
      for (const int64_t t : {0, 1, 2, 3, 4, 65, 255, 600}) {
        for (const bool fresh : {false, true}) {
          const Shape shape{t, channels};
          const TestTensor mix = TestTensor::normal(rng, shape, 4), w = TestTensor::normal(rng, {channels, 4});
          TestTensor state = TestTensor::normal(rng, {3, channels});
          if (fresh) std::ranges::fill(state.values(), 0.0f);
          const TestTensor dy = TestTensor::normal(rng, shape), before = TestTensor::normal(rng, {channels, 4});
          TestTensor dmix(shape), dw = before.copy(), other_dmix = dy.copy(), other_dw = before.copy();
          const Tensor start = fresh ? Tensor() : state.view;
          {
            const test::Unchanged unchanged{&dy, &mix, &w, &state};
            ops::conv_silu_vjp(context.cx, dy.view, mix.view, w.view, start, dmix.view, dw.view);
          }
          oracle::ConvVjp expected = oracle::conv_silu_vjp(dy.doubles(), mix.doubles(), w.doubles(), state.doubles());
          for (size_t i = 0; i < expected.dw.size(); ++i) expected.dw[i] += before.values()[i];
          test::expect_close(dmix, expected.dmix, test::kF32Op, "dmix");
          test::expect_close(dw, expected.dw, test::kF32Op, "dw");
          ops::conv_silu_vjp(one.cx, other_dmix.view, mix.view, w.view, start, other_dmix.view, other_dw.view);
          test::expect_same_bits(other_dmix.view, dmix.view, "one thread, in the place of dy");
          test::expect_same_bits(other_dw.view, dw.view, "dw of one thread");
          Tensor none;
          ops::conv_silu_vjp(one.cx, dy.view, mix.view, w.view, start, other_dmix.view, none);
          test::expect_same_bits(other_dmix.view, dmix.view, "without dw");
        }
      }
    }
  });
}

}  // namespace
}  // namespace nibble

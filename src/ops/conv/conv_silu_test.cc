#include "ops/conv/conv_silu.h"

#include "tests/support/op_test.h"
#include "tests/support/oracle/conv_silu.h"

namespace nibble {
namespace {

using test::TestTensor;

TEST(ConvSilu, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(41);
    for (const int64_t channels : {1, 6, 64, 513, 1100}) {
      for (const int64_t t : test::kTokenCounts) {
        TestTensor mix = TestTensor::normal(rng, {t, channels}, 4), w = TestTensor::normal(rng, {channels, 4});
        TestTensor state = TestTensor::normal(rng, {3, channels}), y({t, channels});
        std::vector<double> expected_state = state.doubles();
        {
          const test::Unchanged unchanged{&mix, &w};
          ops::conv_silu(context.cx, mix.view, w.view, state.view, y.view);
        }
        const auto expected = oracle::conv_silu(mix.doubles(), w.doubles(), expected_state);
        test::expect_close(y, expected, test::kF32Op, "y");
        test::expect_close(state, expected_state, test::kExact, "state");
      }
    }
  });
}

TEST(ConvSilu, AnyCutOfACallGivesTheSameBits) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(42);
    const int64_t channels = 600, tokens = 40;
    TestTensor mix = TestTensor::normal(rng, {tokens, channels}), w = TestTensor::normal(rng, {channels, 4});
    const TestTensor start = TestTensor::normal(rng, {3, channels});
    TestTensor state = start.copy(), y({tokens, channels});
    ops::conv_silu(three.cx, mix.view, w.view, state.view, y.view);
    for (const int64_t piece : {1, 2, 3, 7}) {
      TestTensor other_state = start.copy(), other({tokens, channels});
      for (int64_t t = 0; t < tokens; t += piece) {
        const int64_t end = std::min(t + piece, tokens);
        Tensor out = other.view.rows(t, end);
        ops::conv_silu(one.cx, mix.view.rows(t, end), w.view, other_state.view, out);
      }
      test::expect_same_bits(other.view, y.view, "y");
      test::expect_same_bits(other_state.view, state.view, "state");
    }
  });
}

}  // namespace
}  // namespace nibble

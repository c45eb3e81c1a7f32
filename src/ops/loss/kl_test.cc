#include "ops/loss/kl.h"

#include "tests/support/op_test.h"
#include "tests/support/oracle/loss.h"

namespace nibble {
namespace {

using test::TestTensor;

TEST(SoftmaxCompare, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(61);
    for (const int64_t v : {1, 3, 160, 2001}) {
      for (const int64_t t : {0, 1, 5}) {
        const TestTensor p = TestTensor::normal(rng, {t, v}, 8), q = p.copy();
        for (float& x : q.values()) x += 0.3f * rng.normal();
        std::vector<double> kl(static_cast<size_t>(t), NAN);
        std::vector<uint8_t> same(static_cast<size_t>(t), 7);
        ops::softmax_compare(context.cx, p.view, q.view, kl, same);
        for (int64_t i = 0; i < t; ++i) {
          const float *a = p.view.f32() + i * v, *b = q.view.f32() + i * v;
          EXPECT_NEAR(kl[static_cast<size_t>(i)], oracle::kl(a, b, static_cast<size_t>(v)), 1e-12);
          EXPECT_EQ(same[static_cast<size_t>(i)], std::max_element(a, a + v) - a == std::max_element(b, b + v) - b);
        }
      }
    }
  });
}

TEST(SoftmaxCompare, EqualLogitsAndShiftsHaveNoDivergence) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(62);
    const TestTensor p = TestTensor::normal(rng, {2, 999}, 10), q = p.copy();
    for (float& x : q.values()) x += 64;
    std::vector<double> kl(2);
    std::vector<uint8_t> same(2);
    ops::softmax_compare(context.cx, p.view, p.view, kl, same);
    EXPECT_EQ(kl, std::vector<double>(2, 0.0));
    EXPECT_EQ(same, std::vector<uint8_t>(2, 1));
    ops::softmax_compare(context.cx, p.view, q.view, kl, same);
    for (const double x : kl) EXPECT_LE(x, 1e-10);  // adding 64 in f32 moved every logit by up to 2^-18
  });
}

TEST(SoftmaxCompare, SmallDivergencesKeepTheirDigits) {
  test::for_each_target([] {
    test::TestContext context;
    TestTensor p({1, 2}), q({1, 2});
    p.values()[0] = p.values()[1] = q.values()[1] = 0;
    q.values()[0] = 0x1p-10f;
    std::vector<double> kl(1);
    std::vector<uint8_t> same(1);
    ops::softmax_compare(context.cx, p.view, q.view, kl, same);
    // log cosh(d/2) = d^2/8 - d^4/192
    EXPECT_NEAR(kl[0] / (0x1p-20 / 8), 1, 1e-6);
  });
}

TEST(LabelLogProb, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(63);
    const TestTensor logits = TestTensor::normal(rng, {9, 333}, 20);
    std::vector<int32_t> labels;
    for (int i = 0; i < 9; ++i) labels.push_back(static_cast<int32_t>(rng.below(333)));
    std::vector<double> log_prob(9, NAN);
    ops::label_log_prob(context.cx, logits.view, labels, log_prob);
    for (size_t i = 0; i < 9; ++i) {
      const auto expected = oracle::log_softmax(logits.view.f32() + i * 333, 333);
      EXPECT_NEAR(log_prob[i], expected[static_cast<size_t>(labels[i])], 1e-12 * 100);
    }
  });
}

}  // namespace
}  // namespace nibble

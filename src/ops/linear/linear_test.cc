#include "ops/linear/linear.h"

#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::WeightFormat;
using test::TestTensor;
using test::TestWeight;

struct Case {
  WeightFormat format;
  int64_t out, in;
};

// The micro models' sizes, rows beside whole panels, columns beyond one block and, where the format allows, beside 16.
const std::vector<Case> kCases = {
    {WeightFormat::f32, 96, 64},  {WeightFormat::bf16, 96, 64},  {WeightFormat::nvfp4, 96, 64},
    {WeightFormat::f32, 33, 272}, {WeightFormat::bf16, 33, 272}, {WeightFormat::nvfp4, 33, 272},
    {WeightFormat::f32, 7, 75},   {WeightFormat::bf16, 25, 265}, {WeightFormat::nvfp4, 1, 16},
    {WeightFormat::bf16, 2, 3},   {WeightFormat::nvfp4, 50, 96}, {WeightFormat::f32, 24, 256},
};

void expect_product(const TestTensor& y, const oracle::Product<double>& expected, int64_t in) {
  EXPECT_TRUE(y.guards_intact());
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const double error = std::abs(static_cast<double>(y.values()[i]) - expected.y[i]);
    // Written so that a NaN fails.
    ASSERT_TRUE(error <= test::linear_bound(in, expected.magnitudes[i])) << i << ": error " << error;
  }
}

TEST(Linear, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(91);
    for (const Case& c : kCases) {
      TestWeight w = test::random_weight(rng, c.format, c.out, c.in);
      for (const int64_t t : test::kTokenCounts) {
        const TestTensor x = TestTensor::normal(rng, {t, c.in});
        TestTensor y({t, c.out});
        {
          const test::Unchanged unchanged{&x, &w.weight, &w.block_scale};
          ops::linear(context.cx, x.view, w.linear, y.view);
        }
        expect_product(y, oracle::linear(x.doubles(), w.decoded, static_cast<size_t>(c.in), w.linear.tensor_scale),
                       c.in);
      }
    }
  });
}

TEST(Linear, RowsDependOnNothingElse) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(92);
    for (const Case& c : kCases) {
      const TestWeight w = test::random_weight(rng, c.format, c.out, c.in);
      const int64_t tokens = 200;
      const TestTensor x = TestTensor::normal(rng, {tokens, c.in});
      TestTensor together({tokens, c.out});
      ops::linear(three.cx, x.view, w.linear, together.view);
      for (const int64_t piece : {1, 2, 3, 4, 5, 16, 64, 77}) {
        TestTensor cut({tokens, c.out});
        for (int64_t t = 0; t < tokens; t += piece) {
          const int64_t end = std::min(t + piece, tokens);
          Tensor out = cut.view.rows(t, end);
          ops::linear(one.cx, x.view.rows(t, end), w.linear, out);
        }
        test::expect_same_bits(cut.view, together.view, "y");
      }
    }
  });
}

// One weight at a time: x is the identity, so every code meets every scale byte and nothing is summed.
TEST(Linear, DecodesEveryCodeAndScaleExactly) {
  test::for_each_target([] {
    test::TestContext context;
    TestTensor codes({0x7F, 8}, DType::u8), scales({0x7F, 1}, DType::f8e4m3), x({16, 16}), y({16, 0x7F});
    for (int64_t n = 0; n < 0x7F; ++n) {
      scales.view.u8()[n] = static_cast<uint8_t>(n);
      for (int64_t i = 0; i < 8; ++i) codes.view.u8()[n * 8 + i] = static_cast<uint8_t>((2 * i + 1) << 4 | 2 * i);
    }
    std::ranges::fill(x.values(), 0.0f);
    for (size_t i = 0; i < 16; ++i) x.values()[i * 16 + i] = 1;
    const ops::Linear w{.format = WeightFormat::nvfp4,
                        .out = 0x7F,
                        .in = 16,
                        .weight = codes.view,
                        .block_scale = scales.view,
                        .tensor_scale = 0.75f};
    for (const int64_t step : {1, 4, 16}) {
      for (int64_t t = 0; t < 16; t += step) {
        Tensor out = y.view.rows(t, t + step);
        ops::linear(context.cx, x.view.rows(t, t + step), w, out);
      }
      for (int64_t t = 0; t < 16; ++t) {
        for (int64_t n = 0; n < 0x7F; ++n) {
          const float weight = e2m1_to_f32(static_cast<uint8_t>(t)) * e4m3_to_f32(static_cast<uint8_t>(n));
          EXPECT_EQ(y.view.f32()[t * 0x7F + n], 0.75f * weight) << "code " << t << ", scale byte " << n;
        }
      }
    }
  });
}

TEST(Linear, RoundsInputsToBf16WhenServing) {
  test::for_each_target([] {
    test::TestContext exact, serving(1, Numeric::bf16_act);
    Rng rng(93);
    for (const Case& c : kCases) {
      const TestWeight w = test::random_weight(rng, c.format, c.out, c.in);
      for (const int64_t t : {1, 17}) {
        const TestTensor x = TestTensor::normal(rng, {t, c.in});
        TestTensor rounded = x.copy(), y({t, c.out}), expected({t, c.out});
        for (float& v : rounded.values()) v = round_to_bf16(v);
        ops::linear(serving.cx, x.view, w.linear, y.view);
        ops::linear(exact.cx, rounded.view, w.linear, expected.view);
        test::expect_same_bits(y.view, expected.view, "y");
      }
    }
  });
}

TEST(Linear, QuantizesInputsUnderAStaticScale) {
  test::for_each_target([] {
    Rng rng(94);
    for (const Numeric numeric : {Numeric::exact, Numeric::bf16_act}) {
      test::TestContext context(1, numeric), exact;
      TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 40, 96);
      for (const int64_t t : {1, 4, 20}) {
        const TestTensor x = TestTensor::normal(rng, {t, 96});
        TestTensor quantized = x.copy(), y({t, 40}), expected({t, 40});
        if (numeric == Numeric::bf16_act) {
          for (float& v : quantized.values()) v = round_to_bf16(v);
        }
        const float input_scale = 2.5f / 2688;  // values beyond 2.5 saturate
        ops::nvfp4_fake(exact.cx, quantized.view, {input_scale, false}, quantized.view);
        w.linear.input_scale = input_scale;
        ops::linear(context.cx, x.view, w.linear, y.view);
        w.linear.input_scale = 0;
        ops::linear(exact.cx, quantized.view, w.linear, expected.view);
        test::expect_same_bits(y.view, expected.view, "y");
      }
    }
  });
}

TEST(Linear, CountsItsBytes) {
  Rng rng(95);
  EXPECT_EQ(test::random_weight(rng, WeightFormat::bf16, 8, 32).linear.weight_bytes(), 8u * 32 * 2);
  EXPECT_EQ(test::random_weight(rng, WeightFormat::nvfp4, 8, 32).linear.weight_bytes(), 8u * (16 + 2));
}

// A second call of the same shape takes no new memory.
TEST(Linear, ReusesItsScratch) {
  test::TestContext context(2, Numeric::bf16_act);
  Rng rng(96);
  const TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 64, 256);
  const TestTensor x = TestTensor::normal(rng, {100, 256});
  TestTensor y({100, 64});
  ops::linear(context.cx, x.view, w.linear, y.view);
  const size_t reserved = context.cx.arena.reserved_bytes();
  ops::linear(context.cx, x.view, w.linear, y.view);
  EXPECT_EQ(context.cx.arena.reserved_bytes(), reserved);
}

}  // namespace
}  // namespace nibble

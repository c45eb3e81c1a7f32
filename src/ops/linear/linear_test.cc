#include "ops/linear/linear.h"

#include "ops/quant/fake_inputs.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::InputRounding;
using ops::WeightFormat;
using test::TestTensor;
using test::TestWeight;

struct Case {
  WeightFormat format;
  int64_t out, in;
  bool by_channel = false;  // fp8: a scale per output
  int64_t rank = 0;         // of a low-rank branch, if any

  TestWeight weight(Rng& rng) const {
    TestWeight w = by_channel ? test::random_fp8_by_channel(rng, out, in) : test::random_weight(rng, format, out, in);
    if (rank > 0) test::add_low_rank(rng, w, rank);
    return w;
  }
};

// The micro models' sizes, rows beside whole panels, columns beyond one block and, where the format allows, beside 16.
const std::vector<Case> kCases = {
    {WeightFormat::f32, 96, 64},
    {WeightFormat::bf16, 96, 64},
    {WeightFormat::nvfp4, 96, 64},
    {WeightFormat::f32, 33, 272},
    {WeightFormat::bf16, 33, 272},
    {WeightFormat::nvfp4, 33, 272},
    {WeightFormat::f32, 7, 75},
    {WeightFormat::bf16, 25, 265},
    {WeightFormat::nvfp4, 1, 16},
    {WeightFormat::bf16, 2, 3},
    {WeightFormat::nvfp4, 50, 96},
    {WeightFormat::f32, 24, 256},
    {WeightFormat::fp8, 96, 64},
    {WeightFormat::fp8, 33, 272},
    {WeightFormat::fp8, 25, 265, true},
    {WeightFormat::fp8, 2, 3},
    {WeightFormat::fp8, 7, 1555},
    {WeightFormat::fp8, 49, 816, true},
    {WeightFormat::nvfp4, 33, 272, false, 5},
    {WeightFormat::nvfp4, 50, 96, false, 32},
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
      const TestWeight w = c.weight(rng);
      for (const int64_t t : test::kTokenCounts) {
        const TestTensor x = TestTensor::normal(rng, {t, c.in});
        TestTensor y({t, c.out});
        {
          const test::Unchanged unchanged{&x, &w.weight, &w.block_scale, &w.channel_scale, &w.low_rank_a};
          ops::linear(context.cx, x.view, w.linear, y.view);
        }
        auto expected = oracle::linear(x.doubles(), w.decoded, static_cast<size_t>(c.in), w.factors());
        if (c.rank > 0) oracle::add_low_rank(expected, x.doubles(), w.a, w.b, static_cast<size_t>(c.in));
        expect_product(y, expected, c.in + (c.rank > 0 ? c.rank + 2 : 0));
      }
    }
  });
}

TEST(Linear, RowsDependOnNothingElse) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(92);
    for (const Case& c : kCases) {
      const TestWeight w = c.weight(rng);
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
      if (c.rank > 0) continue;
      const TestWeight w = c.weight(rng);
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

// x is the identity, so that every byte is met and nothing is summed.
TEST(Linear, DecodesEveryFp8ByteExactly) {
  test::for_each_target([] {
    test::TestContext context;
    constexpr int64_t kIn = 2 * 0x7F;
    TestTensor bytes({1, kIn}, DType::f8e4m3, 1), x({kIn, kIn}), y({kIn, 1});
    for (int64_t i = 0; i < kIn; ++i) bytes.view.u8()[i] = static_cast<uint8_t>(i < 0x7F ? i : i + 1);
    std::ranges::fill(x.values(), 0.0f);
    for (size_t i = 0; i < kIn; ++i) x.values()[i * kIn + i] = 1;
    const ops::Linear w{.format = WeightFormat::fp8, .out = 1, .in = kIn, .weight = bytes.view, .tensor_scale = 0.75f};
    for (const int64_t step : {int64_t{1}, int64_t{4}, kIn}) {
      for (int64_t t = 0; t < kIn; t += step) {
        Tensor out = y.view.rows(t, std::min(t + step, kIn));
        ops::linear(context.cx, x.view.rows(t, std::min(t + step, kIn)), w, out);
      }
      for (int64_t t = 0; t < kIn; ++t) {
        EXPECT_EQ(y.view.f32()[t], 0.75f * e4m3_to_f32(bytes.view.u8()[t])) << "byte " << int{bytes.view.u8()[t]};
      }
    }
  });
}

// The branch reads x before its 4-bit rounding; in serving both of its operands are BF16.
TEST(Linear, LowRankBranchReadsUnquantizedInputs) {
  test::for_each_target([] {
    Rng rng(97);
    for (const Numeric numeric : {Numeric::exact, Numeric::bf16_act}) {
      test::TestContext context(2, numeric), exact;
      TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 40, 96);
      test::add_low_rank(rng, w, 6);
      w.linear.inputs = InputRounding::nvfp4_token;
      ops::Linear main = w.linear, a, b;
      main.low_rank_a = main.low_rank_b = {};
      a = {.format = WeightFormat::bf16, .out = 6, .in = 96, .weight = w.linear.low_rank_a};
      b = {.format = WeightFormat::bf16, .out = 40, .in = 6, .weight = w.linear.low_rank_b};
      for (const int64_t t : {1, 4, 20}) {
        const TestTensor x = TestTensor::normal(rng, {t, 96});
        TestTensor y({t, 40}), expected({t, 40}), z({t, 6}), branch({t, 40});
        ops::linear(context.cx, x.view, w.linear, y.view);
        ops::linear(context.cx, x.view, main, expected.view);
        ops::linear(context.cx, x.view, a, z.view);
        ops::linear(context.cx, z.view, b, branch.view);  // rounds z where x was rounded
        for (size_t i = 0; i < branch.values().size(); ++i) expected.values()[i] += branch.values()[i];
        test::expect_same_bits(y.view, expected.view, "y");
      }
    }
  });
}

TEST(Linear, RoundsInputsAsItIsTold) {
  test::for_each_target([] {
    Rng rng(98);
    for (const Numeric numeric : {Numeric::exact, Numeric::bf16_act}) {
      test::TestContext context(1, numeric), exact;
      for (const WeightFormat format : {WeightFormat::nvfp4, WeightFormat::fp8}) {
        TestWeight w = test::random_weight(rng, format, 40, 96);
        for (const int64_t t : {1, 4, 20}) {
          const TestTensor x = TestTensor::normal(rng, {t, 96});
          TestTensor rounded = x.copy(), y({t, 40}), expected({t, 40});
          if (numeric == Numeric::bf16_act) {
            for (float& v : rounded.values()) v = round_to_bf16(v);
          }
          const bool token = format == WeightFormat::nvfp4;
          w.linear.inputs = token ? InputRounding::nvfp4_token : InputRounding::fp8;
          w.linear.input_scale = token ? 0 : 2.5f / 448;
          if (token) {
            ops::nvfp4_fake_rows(exact.cx, rounded.view, rounded.view);
          } else {
            ops::fp8_fake(exact.cx, rounded.view, w.linear.input_scale, rounded.view);
          }
          ops::linear(context.cx, x.view, w.linear, y.view);
          w.linear.inputs = InputRounding::none;
          ops::linear(exact.cx, rounded.view, w.linear, expected.view);
          test::expect_same_bits(y.view, expected.view, "y");
        }
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
        w.linear.inputs = InputRounding::nvfp4;
        w.linear.input_scale = input_scale;
        ops::linear(context.cx, x.view, w.linear, y.view);
        w.linear.inputs = InputRounding::none;
        ops::linear(exact.cx, quantized.view, w.linear, expected.view);
        test::expect_same_bits(y.view, expected.view, "y");
      }
    }
  });
}

TEST(Linear, CountsItsBytes) {
  Rng rng(95);
  EXPECT_EQ(test::random_weight(rng, WeightFormat::bf16, 8, 32).linear.weight_bytes(), 8u * 32 * 2);
  TestWeight nvfp4 = test::random_weight(rng, WeightFormat::nvfp4, 8, 32);
  EXPECT_EQ(nvfp4.linear.weight_bytes(), 8u * (16 + 2));
  test::add_low_rank(rng, nvfp4, 3);
  EXPECT_EQ(nvfp4.linear.weight_bytes(), 8u * (16 + 2) + 3 * (8 + 32) * 2);
  EXPECT_EQ(test::random_fp8_by_channel(rng, 8, 32).linear.weight_bytes(), 8u * (32 + 4));
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

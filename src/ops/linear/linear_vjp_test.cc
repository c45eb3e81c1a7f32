#include <optional>

#include "ops/linear/linear.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::InputRounding;
using ops::WeightFormat;
using test::TestTensor;
using test::TestWeight;

constexpr float kInputScale = 2.5f / 2688;  // values beyond 2.5 saturate

/// x' of the contract in f64.
std::vector<double> rounded(const TestTensor& x, float input_scale) {
  if (input_scale == 0) return x.doubles();
  test::TestContext exact;
  TestTensor y(x.view.shape());
  ops::nvfp4_fake(exact.cx, x.view, {input_scale, false}, y.view);
  return y.doubles();
}

struct Case {
  WeightFormat format;
  int64_t out, in;
  float input_scale = 0;
  bool by_channel = false;  // fp8: a scale per output

  TestWeight weight(Rng& rng) const {
    TestWeight w = by_channel ? test::random_fp8_by_channel(rng, out, in) : test::random_weight(rng, format, out, in);
    w.linear.input_scale = input_scale;
    if (input_scale > 0) w.linear.inputs = InputRounding::nvfp4;
    return w;
  }
};

// The micro models' sizes, then shapes beside whole vectors, tiles and decoded blocks.
const std::vector<Case> kCases = {
    {WeightFormat::f32, 96, 64},          {WeightFormat::bf16, 96, 64},   {WeightFormat::nvfp4, 96, 64, kInputScale},
    {WeightFormat::f32, 7, 75},           {WeightFormat::bf16, 25, 265},  {WeightFormat::nvfp4, 33, 272},
    {WeightFormat::bf16, 2, 3},           {WeightFormat::nvfp4, 1, 16},   {WeightFormat::nvfp4, 300, 144, kInputScale},
    {WeightFormat::f32, 257, 20},         {WeightFormat::bf16, 513, 129}, {WeightFormat::fp8, 300, 144},
    {WeightFormat::fp8, 33, 75, 0, true},
};

TEST(LinearVjp, OracleMeetsComplexStep) {
  Rng rng(101);
  for (const Case& c : {Case{WeightFormat::f32, 5, 7}, Case{WeightFormat::bf16, 4, 8}, Case{WeightFormat::nvfp4, 3, 32},
                        Case{WeightFormat::nvfp4, 6, 16, kInputScale}, Case{WeightFormat::fp8, 6, 5, 0, true}}) {
    const TestWeight w = c.weight(rng);
    const std::vector<double> factors = w.factors();
    const TestTensor x = TestTensor::normal(rng, {3, c.in}), dy = TestTensor::normal(rng, {3, c.out});
    const std::vector<double> seen = rounded(x, c.input_scale);
    const auto in = static_cast<size_t>(c.in);
    // The master weights: anything that the codes could stand for, as only its tangent counts.
    std::vector<double> master;
    for (size_t i = 0; i < w.decoded.size(); ++i) master.push_back(factors[i / in] * w.decoded[i] * 1.1);
    const oracle::LinearVjp vjp = oracle::linear_vjp(dy.doubles(), seen, w.decoded, in, factors);
    test::expect_gradients({{"x", x.doubles(), vjp.dx.y}, {"w", master, vjp.dw.y}}, [&](auto inputs) {
      for (size_t i = 0; i < seen.size(); ++i) inputs[0][i] = test::straight_through(inputs[0][i], seen[i]);
      for (size_t i = 0; i < master.size(); ++i) {
        inputs[1][i] = test::straight_through(inputs[1][i], factors[i / in] * w.decoded[i]);
      }
      return test::contract(dy.doubles(), oracle::linear(inputs[0], inputs[1], in, 1).y);
    });
  }
}

void expect_product(const TestTensor& actual, const oracle::Product<double>& expected, int64_t terms,
                    const char* what) {
  EXPECT_TRUE(actual.guards_intact()) << what;
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual.values()[i]) - expected.y[i]);
    // Written so that a NaN fails.
    ASSERT_TRUE(error <= test::linear_bound(terms, expected.magnitudes[i])) << what << "[" << i << "]: error " << error;
  }
}

TEST(LinearVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(102);
    for (const Case& c : kCases) {
      const TestWeight w = c.weight(rng);
      for (const int64_t t : {0, 1, 2, 5, 16, 65, 200}) {
        const TestTensor x = TestTensor::normal(rng, {t, c.in}), dy = TestTensor::normal(rng, {t, c.out});
        const TestTensor before = TestTensor::normal(rng, {c.out, c.in});
        TestTensor dx({t, c.in}), dw = before.copy();
        {
          const test::Unchanged unchanged{&x, &dy, &w.weight, &w.block_scale};
          ops::linear_vjp(context.cx, dy.view, x.view, w.linear, dx.view, dw.view);
        }
        auto expected = oracle::linear_vjp(dy.doubles(), rounded(x, c.input_scale), w.decoded,
                                           static_cast<size_t>(c.in), w.factors());
        for (size_t i = 0; i < expected.dw.y.size(); ++i) {
          const double start = before.values()[i];
          expected.dw.y[i] += start;
          expected.dw.magnitudes[i] += std::abs(start);
        }
        expect_product(dx, expected.dx, c.out + 2, "dx");  // beside the sum, the factor of each partial sum
        expect_product(dw, expected.dw, t + 1, "dw");
      }
    }
  });
}

// Sizes with many tiles and more than one decoded block.
TEST(LinearVjp, ThreadsAndWantedPartsDoNotChangeBits) {
  Rng rng(103);
  for (const Case& c : {Case{WeightFormat::f32, 300, 1040}, Case{WeightFormat::bf16, 513, 270},
                        Case{WeightFormat::nvfp4, 700, 528, kInputScale}, Case{WeightFormat::fp8, 513, 270, 0, true}}) {
    const TestWeight w = c.weight(rng);
    const TestTensor x = TestTensor::normal(rng, {333, c.in}), dy = TestTensor::normal(rng, {333, c.out});
    const TestTensor before = TestTensor::normal(rng, {c.out, c.in});
    std::optional<TestTensor> first_dx, first_dw;
    for (const int threads : {1, 2, 3}) {
      test::TestContext context(threads);
      TestTensor dx({333, c.in}), dw = before.copy(), dx_alone({333, c.in}), dw_alone = before.copy();
      Tensor none;
      ops::linear_vjp(context.cx, dy.view, x.view, w.linear, dx.view, dw.view);
      const size_t reserved = context.cx.arena.reserved_bytes();
      ops::linear_vjp(context.cx, dy.view, none, w.linear, dx_alone.view, none);
      ops::linear_vjp(context.cx, dy.view, x.view, w.linear, none, dw_alone.view);
      EXPECT_EQ(context.cx.arena.reserved_bytes(), reserved);
      test::expect_same_bits(dx_alone.view, dx.view, "dx alone");
      test::expect_same_bits(dw_alone.view, dw.view, "dw alone");
      if (!first_dx) {
        first_dx = dx.copy();
        first_dw = dw.copy();
      }
      test::expect_same_bits(dx.view, first_dx->view, "dx");
      test::expect_same_bits(dw.view, first_dw->view, "dw");
    }
  }
}

TEST(LinearVjp, GoesThroughALowRankBranch) {
  test::for_each_target([] {
    Rng rng(105);
    TestWeight w = test::random_weight(rng, WeightFormat::nvfp4, 70, 144);
    test::add_low_rank(rng, w, 5);
    for (const int64_t t : {1, 17, 200}) {
      const TestTensor dy = TestTensor::normal(rng, {t, 70});
      Tensor none;
      for (const int threads : {1, 3}) {
        test::TestContext context(threads);
        TestTensor dx({t, 144});
        ops::linear_vjp(context.cx, dy.view, none, w.linear, dx.view, none);
        auto expected = oracle::linear_vjp(dy.doubles(), {}, w.decoded, 144, w.factors()).dx;
        oracle::add_low_rank(expected, dy.doubles(), oracle::transposed(w.b, 5), oracle::transposed(w.a, 144), 70);
        expect_product(dx, expected, 70 + 5 + 4, "dx");
      }
    }
  });
}

// An f32 weight is read where it lies or, at an odd address, through scratch.
TEST(LinearVjp, AlignmentOfTheWeightDoesNotChangeBits) {
  test::TestContext context(2);
  Rng rng(104);
  TestWeight w = test::random_weight(rng, WeightFormat::f32, 300, 200);
  const TestTensor dy = TestTensor::normal(rng, {70, 300}), aligned = w.weight.copy();
  TestTensor dx({70, 200}), other({70, 200});
  Tensor none;
  ops::linear_vjp(context.cx, dy.view, none, w.linear, dx.view, none);
  w.linear.weight = aligned.view;
  ops::linear_vjp(context.cx, dy.view, none, w.linear, other.view, none);
  test::expect_same_bits(dx.view, other.view, "dx");
}

}  // namespace
}  // namespace nibble

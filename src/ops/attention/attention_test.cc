#include "ops/attention/attention.h"

#include "tensor/numeric.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/attention.h"

namespace nibble {
namespace {

using test::TestTensor;

/// A cache of NaN with rows [0, valid) appended from random numbers, and those rows as the cache holds them.
struct Cache {
  Cache(Context& cx, Rng& rng, int64_t capacity, int64_t valid, int64_t heads, int64_t size, DType dtype)
      : tensor({capacity, heads, size}, dtype) {
    TestTensor rows = TestTensor::normal(rng, {valid, heads, size});
    ops::append_kv(cx, rows.view, 0, tensor.view);
    for (const float x : rows.values()) {
      stored.push_back(dtype == DType::bf16 ? round_to_bf16(x) : x);
    }
  }
  TestTensor tensor;
  std::vector<double> stored;
};

struct Case {
  int64_t heads, kv_heads, size, past;
};

const std::vector<Case> kCases = {{2, 1, 32, 0}, {4, 2, 16, 3}, {3, 3, 20, 61}, {8, 2, 64, 130}};

TEST(Attention, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(71);
    for (const Case& c : kCases) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const int64_t t : test::kTokenCounts) {
          const float scale = 2 / std::sqrt(static_cast<float>(c.size));
          const TestTensor q = TestTensor::normal(rng, {t, c.heads, c.size});
          const Cache keys(context.cx, rng, c.past + t + 3, c.past + t, c.kv_heads, c.size, dtype);
          const Cache values(context.cx, rng, c.past + t + 3, c.past + t, c.kv_heads, c.size, dtype);
          TestTensor o({t, c.heads, c.size});
          {
            const test::Unchanged unchanged{&q, &keys.tensor, &values.tensor};
            ops::attention(context.cx, q.view, keys.tensor.view, values.tensor.view, c.past, scale, o.view);
          }
          const oracle::AttentionShape shape{static_cast<size_t>(t), static_cast<size_t>(c.heads),
                                             static_cast<size_t>(c.kv_heads), static_cast<size_t>(c.size),
                                             static_cast<size_t>(c.past)};
          const auto expected = oracle::attention(shape, q.doubles(), keys.stored, values.stored, scale);
          test::expect_close(o, expected, test::kF32Op, "o");
        }
      }
    }
  });
}

// A row of a long call, the same row alone, and the same row with fewer threads.
TEST(Attention, RowsDependOnTheirPositionAlone) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(72);
    const int64_t tokens = 150, heads = 4, size = 32, past = 70;
    const TestTensor q = TestTensor::normal(rng, {tokens, heads, size});
    const Cache keys(one.cx, rng, past + tokens, past + tokens, 2, size, DType::bf16);
    const Cache values(one.cx, rng, past + tokens, past + tokens, 2, size, DType::bf16);
    TestTensor together({tokens, heads, size});
    ops::attention(three.cx, q.view, keys.tensor.view, values.tensor.view, past, 0.2f, together.view);
    for (const int64_t piece : {1, 16, 64}) {
      TestTensor cut({tokens, heads, size});
      for (int64_t t = 0; t < tokens; t += piece) {
        const int64_t end = std::min(t + piece, tokens);
        Tensor out = cut.view.rows(t, end);
        ops::attention(one.cx, q.view.rows(t, end), keys.tensor.view, values.tensor.view, past + t, 0.2f, out);
      }
      test::expect_same_bits(cut.view, together.view, "o");
    }
  });
}

// Scores of several hundred overflow exp unless the maximum is taken out first, also one that comes late.
TEST(Attention, SurvivesLargeScores) {
  test::for_each_target([] {
    test::TestContext context;
    Rng rng(73);
    const int64_t tokens = 70, size = 16;
    TestTensor q = TestTensor::normal(rng, {tokens, 1, size}, 30);
    Cache keys(context.cx, rng, tokens, tokens, 1, size, DType::f32);
    for (size_t i = 0; i < keys.stored.size(); ++i) {
      const double factor = 1 + static_cast<double>(i) / 100;
      keys.tensor.values()[i] *= static_cast<float>(factor);
      keys.stored[i] = keys.tensor.values()[i];
    }
    const Cache values(context.cx, rng, tokens, tokens, 1, size, DType::f32);
    TestTensor o({tokens, 1, size});
    ops::attention(context.cx, q.view, keys.tensor.view, values.tensor.view, 0, 1.0f, o.view);
    const auto expected =
        oracle::attention({static_cast<size_t>(tokens), 1, 1, size, 0}, q.doubles(), keys.stored, values.stored, 1.0);
    // A score of 5000 carries an absolute f32 error near 1e-3, which exp turns into a relative one.
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(o.values()[i], expected[i], 2e-2);
  });
}

TEST(AppendKv, RoundsToTheCacheAndTouchesNothingElse) {
  test::TestContext context;
  Rng rng(74);
  const TestTensor k = TestTensor::normal(rng, {2, 1, 16});
  TestTensor cache({5, 1, 16}, DType::bf16);
  ops::append_kv(context.cx, k.view, 2, cache.view);
  EXPECT_TRUE(cache.guards_intact());
  for (int64_t i = 0; i < 5 * 16; ++i) {
    const bool written = i >= 2 * 16 && i < 4 * 16;
    const uint16_t expected = written ? f32_to_bf16(k.values()[static_cast<size_t>(i - 2 * 16)]) : 0xFFFF;
    EXPECT_EQ(cache.view.bf16()[i], expected) << i;
  }
}

}  // namespace
}  // namespace nibble

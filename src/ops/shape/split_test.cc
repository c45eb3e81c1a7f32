#include "ops/shape/split.h"

#include "ops/embed/embed.h"
#include "tensor/numeric.h"
#include "tests/support/op_test.h"

namespace nibble {
namespace {

using test::TestTensor;

TEST(SplitHeads, TakesHalvesHeadByHead) {
  test::TestContext context(2);
  Rng rng(51);
  for (const int64_t t : test::kTokenCounts) {
    const int64_t heads = 3, size = 20;
    const TestTensor qg = TestTensor::normal(rng, {t, heads, 2 * size});
    TestTensor q({t, heads, size}), gate({t, heads, size});
    ops::split_heads(context.cx, qg.view, q.view, gate.view);
    std::vector<double> expected_q, expected_gate;
    for (int64_t i = 0; i < qg.view.elements(); ++i) {
      (i % (2 * size) < size ? expected_q : expected_gate).push_back(qg.values()[static_cast<size_t>(i)]);
    }
    test::expect_close(q, expected_q, test::kExact, "q");
    test::expect_close(gate, expected_gate, test::kExact, "gate");
  }
}

TEST(SplitColumns, TakesColumnsInOrder) {
  test::TestContext context(2);
  Rng rng(52);
  for (const int64_t t : test::kTokenCounts) {
    const TestTensor x = TestTensor::normal(rng, {t, 5 + 12 + 1});
    TestTensor first({t, 5}), second({t, 3, 4}), third({t, 1});
    std::vector<Tensor> parts = {first.view, second.view, third.view};
    ops::split_columns(context.cx, x.view, parts);
    std::vector<double> a, b, c;
    for (int64_t i = 0; i < x.view.elements(); ++i) {
      const int64_t column = i % 18;
      (column < 5 ? a : column < 17 ? b : c).push_back(x.values()[static_cast<size_t>(i)]);
    }
    test::expect_close(first, a, test::kExact, "first");
    test::expect_close(second, b, test::kExact, "second");
    test::expect_close(third, c, test::kExact, "third");
  }
}

TEST(Joins, UndoSplits) {
  test::TestContext context(2);
  Rng rng(54);
  for (const int64_t t : test::kTokenCounts) {
    const TestTensor qg = TestTensor::normal(rng, {t, 3, 40}), x = TestTensor::normal(rng, {t, 5 + 12 + 1});
    TestTensor q({t, 3, 20}), gate({t, 3, 20}), qg_again({t, 3, 40});
    ops::split_heads(context.cx, qg.view, q.view, gate.view);
    ops::join_heads(context.cx, q.view, gate.view, qg_again.view);
    test::expect_same_bits(qg_again.view, qg.view, "qg");
    TestTensor first({t, 5}), second({t, 3, 4}), third({t, 1}), x_again({t, 18});
    std::vector<Tensor> parts = {first.view, second.view, third.view};
    ops::split_columns(context.cx, x.view, parts);
    ops::join_columns(context.cx, parts, x_again.view);
    test::expect_same_bits(x_again.view, x.view, "x");
    EXPECT_TRUE(qg_again.guards_intact() && x_again.guards_intact());
  }
}

TEST(EmbedVjp, AddsTheRowsOfEveryToken) {
  Rng rng(55);
  const int64_t tokens = 200, vocabulary = 23, hidden = 131;
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < tokens; ++t) ids.push_back(static_cast<int32_t>(rng.below(vocabulary - 1)));
  const TestTensor dy = TestTensor::normal(rng, {tokens, hidden});
  const TestTensor before = TestTensor::normal(rng, {vocabulary, hidden});
  std::vector<double> expected = before.doubles();
  for (int64_t i = 0; i < tokens * hidden; ++i) {
    expected[static_cast<size_t>(ids[static_cast<size_t>(i / hidden)] * hidden + i % hidden)] +=
        dy.values()[static_cast<size_t>(i)];
  }
  TestTensor first;
  for (const int threads : {1, 2, 3}) {
    test::TestContext context(threads);
    TestTensor dtable = before.copy();
    ops::embed_vjp(context.cx, dy.view, ids, dtable.view);
    test::expect_close(dtable, expected, test::kF32Op, "dtable");
    // No token has the last id.
    test::expect_same_bits(dtable.view.rows(vocabulary - 1, vocabulary), before.view.rows(vocabulary - 1, vocabulary),
                           "an unused row");
    if (threads == 1) first = dtable.copy();
    test::expect_same_bits(dtable.view, first.view, "dtable");
  }
}

TEST(Embed, CopiesRowsOfEitherType) {
  test::TestContext context(2);
  Rng rng(53);
  const std::vector<int32_t> ids = {4, 0, 0, 6, 3};
  const TestTensor table = TestTensor::normal(rng, {7, 21});
  const TestTensor rounded({7, 21}, DType::bf16, 1);  // as in a mapped file: not even aligned to two bytes
  for (size_t i = 0; i < table.values().size(); ++i) {
    const uint16_t bits = f32_to_bf16(table.values()[i]);
    std::memcpy(static_cast<std::byte*>(rounded.view.raw()) + 2 * i, &bits, sizeof bits);
  }
  std::vector<double> exact, coarse;
  for (const int32_t id : ids) {
    for (int i = 0; i < 21; ++i) {
      const float x = table.values()[static_cast<size_t>(id * 21 + i)];
      exact.push_back(x);
      coarse.push_back(round_to_bf16(x));
    }
  }
  TestTensor y({5, 21}), z({5, 21}), nothing(Shape{0, 21});
  ops::embed(context.cx, ids, table.view, y.view);
  test::expect_close(y, exact, test::kExact, "from f32");
  ops::embed(context.cx, ids, rounded.view, z.view);
  test::expect_close(z, coarse, test::kExact, "from bf16");
  ops::embed(context.cx, {}, table.view, nothing.view);
}

}  // namespace
}  // namespace nibble

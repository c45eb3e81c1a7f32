#include "ops/loss/head_loss.h"

#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/linear.h"
#include "tests/support/oracle/loss.h"
#include "tests/support/weights.h"

namespace nibble {
namespace {

using ops::HeadLoss;
using ops::HeadLossRow;
using ops::WeightFormat;
using test::TestTensor;
using test::TestWeight;

/// Every third row has no objective, and the others have cross entropy, KL, both, or a label without weight.
std::vector<HeadLossRow> some_rows(Rng& rng, int64_t tokens, int64_t vocabulary, bool teacher) {
  std::vector<HeadLossRow> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    if (t % 3 == 1) continue;
    HeadLossRow row{.row = static_cast<int32_t>(t), .label = -1, .ce_weight = 0, .kl_weight = 0};
    if (t % 5 != 0) row.label = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocabulary)));
    if (t % 5 > 1) row.ce_weight = rng.uniform(0.1f, 1);
    if (teacher && t % 2 == 0) row.kl_weight = rng.uniform(0.1f, 1);
    rows.push_back(row);
  }
  return rows;
}

std::vector<oracle::HeadRow> for_oracle(const std::vector<HeadLossRow>& rows) {
  std::vector<oracle::HeadRow> same;
  for (const HeadLossRow& r : rows) same.push_back({static_cast<size_t>(r.row), r.label, r.ce_weight, r.kl_weight});
  return same;
}

/// A student, a teacher of another width, and rows over `tokens` tokens.
struct Problem {
  Problem(uint64_t seed, WeightFormat format, int64_t tokens, int64_t vocabulary, int64_t width, bool teaches = true)
      : rng(seed),
        hidden(TestTensor::normal(rng, {tokens, width}, 0.3f)),
        teacher_hidden(TestTensor::normal(rng, {tokens, 24}, 0.4f)),
        before(TestTensor::normal(rng, {vocabulary, width}, 0.1f)),
        head(test::random_weight(rng, format, vocabulary, width)),
        teacher_head(test::random_weight(rng, WeightFormat::f32, vocabulary, 24)),
        rows(some_rows(rng, tokens, vocabulary, teaches)) {
    if (teaches) teacher = {teacher_hidden.view, &teacher_head.linear};
    if (format == WeightFormat::nvfp4) {  // logits of ordinary size
      uint8_t* scales = head.block_scale.view.u8();
      for (int64_t i = 0; i < vocabulary * width / 16; ++i) scales[i] = static_cast<uint8_t>(0x30 + rng.below(16));
      for (int64_t i = 0; i < vocabulary * width; ++i) {
        const auto code = static_cast<uint8_t>(head.weight.view.u8()[i / 2] >> (i % 2 * 4) & 0xF);
        head.decoded[static_cast<size_t>(i)] = static_cast<double>(e2m1_to_f32(code)) * e4m3_to_f32(scales[i / 16]);
      }
      head.linear.tensor_scale = 0.2f;
    }
  }

  std::vector<double> logits() const {
    return oracle::linear(hidden.doubles(), head.decoded, static_cast<size_t>(head.linear.in), head.linear.tensor_scale)
        .y;
  }
  std::vector<double> teacher_logits() const {
    return oracle::linear(teacher_hidden.doubles(), teacher_head.decoded, 24, 1).y;
  }

  Rng rng;
  TestTensor hidden, teacher_hidden, before;
  TestWeight head, teacher_head;
  std::vector<HeadLossRow> rows;
  ops::HeadTeacher teacher;
};

TEST(HeadLoss, OracleMeetsComplexStep) {
  const Problem p(71, WeightFormat::f32, 9, 7, 5);
  const auto rows = for_oracle(p.rows);
  const std::vector<double> z = p.logits(), wanted = p.teacher_logits();
  for (const double tau : {1.0, 2.5}) {
    test::expect_gradients({{"z", z, oracle::head_loss_vjp(rows, z, wanted, 7, tau)}},
                           [&](const auto& in) { return oracle::head_loss(rows, in[0], wanted, 7, tau).loss; });
  }
}

void expect_same_sums(const HeadLoss& a, const HeadLoss& b) {
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.ce, b.ce);
  EXPECT_EQ(a.kl, b.kl);
  EXPECT_EQ(a.teacher_entropy, b.teacher_entropy);
  EXPECT_EQ(a.ce_rows, b.ce_rows);
  EXPECT_EQ(a.kl_rows, b.kl_rows);
  EXPECT_EQ(a.correct, b.correct);
  EXPECT_EQ(a.agree, b.agree);
}

/// Logits carry the rounding of linear, so sums of n rows agree to about n of its steps.
void expect_near(double actual, double expected, const char* what) {
  EXPECT_NEAR(actual, expected, 1e-5 * std::max(1.0, std::abs(expected))) << what;
}

void expect_counts(const HeadLoss& sums, const Problem& p) {
  const auto vocabulary = p.head.linear.out;
  const auto top = [&](const std::vector<double>& z, int32_t row) {
    const auto first = z.begin() + row * vocabulary;
    return std::max_element(first, first + vocabulary) - first;
  };
  const std::vector<double> z = p.logits(), wanted = p.teacher_logits();
  HeadLoss expected;
  for (const HeadLossRow& r : p.rows) {
    expected.ce_rows += r.label >= 0;
    expected.kl_rows += r.kl_weight != 0;
    expected.correct += r.label >= 0 && top(z, r.row) == r.label;
    expected.agree += r.kl_weight != 0 && top(z, r.row) == top(wanted, r.row);
  }
  EXPECT_EQ(sums.ce_rows, expected.ce_rows);
  EXPECT_EQ(sums.kl_rows, expected.kl_rows);
  EXPECT_EQ(sums.correct, expected.correct);
  EXPECT_EQ(sums.agree, expected.agree);
}

TEST(HeadLoss, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::nvfp4}) {
      for (const int64_t vocabulary : {1, 3, 97, 320}) {
        for (const float tau : {1.0f, 2.0f}) {
          Problem p(72, format, 40, vocabulary, 48, vocabulary != 97);
          const auto n = static_cast<size_t>(vocabulary);
          TestTensor dhidden({40, 48}), dhead = p.before.copy();
          HeadLoss sums;
          {
            const test::Unchanged unchanged{&p.hidden, &p.teacher_hidden, &p.head.weight, &p.teacher_head.weight};
            sums = ops::head_loss_vjp(context.cx, p.rows, p.hidden.view, p.head.linear, p.teacher,
                                      {.tau = tau, .chunk = 7}, dhidden.view, dhead.view);
          }
          const auto rows = for_oracle(p.rows);
          const std::vector<double> z = p.logits(), wanted = p.teacher_logits();
          const auto expected = oracle::head_loss(rows, z, wanted, n, tau);
          expect_near(sums.loss, expected.loss, "loss");
          expect_near(sums.ce, expected.ce, "ce");
          expect_near(sums.kl, expected.kl, "kl");
          expect_near(sums.teacher_entropy, expected.teacher_entropy, "teacher entropy");
          expect_counts(sums, p);
          const auto dz = oracle::head_loss_vjp(rows, z, wanted, n, tau);
          auto vjp = oracle::linear_vjp(dz, p.hidden.doubles(), p.head.decoded, 48, p.head.linear.tensor_scale);
          for (size_t i = 0; i < vjp.dw.y.size(); ++i) vjp.dw.y[i] += p.before.values()[i];
          test::expect_close(dhidden, vjp.dx.y, test::kF32Op, "dhidden");
          test::expect_close(dhead, vjp.dw.y, test::kF32Op, "dhead");
        }
      }
    }
  });
}

TEST(HeadLoss, RowsWithoutObjectiveHaveNoGradient) {
  test::TestContext context(2);
  Problem p(73, WeightFormat::bf16, 40, 97, 48);
  TestTensor dhidden({40, 48}), dhead = p.before.copy();
  ops::head_loss_vjp(context.cx, p.rows, p.hidden.view, p.head.linear, p.teacher, {}, dhidden.view, dhead.view);
  std::vector<bool> trained(40);
  for (const HeadLossRow& r : p.rows) trained[static_cast<size_t>(r.row)] = r.ce_weight != 0 || r.kl_weight != 0;
  for (size_t i = 0; i < dhidden.values().size(); ++i) {
    if (!trained[i / 48]) {
      EXPECT_EQ(std::bit_cast<uint32_t>(dhidden.values()[i]), 0u) << i;
    }
  }
  // A teacher that is the student itself teaches nothing.
  for (HeadLossRow& r : p.rows) r = {.row = r.row, .kl_weight = 1};
  const HeadLoss sums = ops::head_loss_vjp(context.cx, p.rows, p.hidden.view, p.head.linear,
                                           {p.hidden.view, &p.head.linear}, {}, dhidden.view, dhead.view);
  EXPECT_EQ(sums.kl, 0);
  EXPECT_EQ(sums.agree, sums.kl_rows);
  test::expect_close(dhidden, std::vector<double>(40 * 48, 0.0), test::kExact, "dhidden");
  // No rows at all.
  TestTensor untouched = p.before.copy(), empty({40, 48});
  expect_same_sums(
      ops::head_loss_vjp(context.cx, {}, p.hidden.view, p.head.linear, p.teacher, {}, empty.view, untouched.view),
      HeadLoss{});
  test::expect_close(empty, std::vector<double>(40 * 48, 0.0), test::kExact, "dhidden");
  test::expect_same_bits(untouched.view, p.before.view, "dhead");
}

TEST(HeadLoss, ThreadsDoNotChangeBitsNorChunksTheSums) {
  Problem p(74, WeightFormat::nvfp4, 120, 600, 144);
  TestTensor first_hidden, first_head;
  HeadLoss first;
  for (const int threads : {1, 2, 3}) {
    test::TestContext context(threads);
    TestTensor dhidden({120, 144}), dhead = p.before.copy();
    const auto run = [&](int64_t chunk, Tensor& dh, Tensor& dw) {
      return ops::head_loss_vjp(context.cx, p.rows, p.hidden.view, p.head.linear, p.teacher, {.tau = 2, .chunk = chunk},
                                dh, dw);
    };
    const HeadLoss sums = run(32, dhidden.view, dhead.view);
    if (threads == 1) {
      first = sums;
      first_hidden = dhidden.copy();
      first_head = dhead.copy();
    }
    expect_same_sums(sums, first);
    test::expect_same_bits(dhidden.view, first_hidden.view, "dhidden");
    test::expect_same_bits(dhead.view, first_head.view, "dhead");

    const size_t reserved = context.cx.arena.reserved_bytes();
    TestTensor alone({120, 144});
    Tensor none;
    expect_same_sums(run(32, alone.view, none), first);
    test::expect_same_bits(alone.view, first_hidden.view, "dhidden without dhead");
    EXPECT_EQ(context.cx.arena.reserved_bytes(), reserved);
    for (const int64_t chunk : {1, 5, 512}) {
      expect_same_sums(run(chunk, alone.view, none), first);
      expect_same_sums(
          ops::head_loss(context.cx, p.rows, p.hidden.view, p.head.linear, p.teacher, {.tau = 2, .chunk = chunk}),
          first);
    }
  }
}

}  // namespace
}  // namespace nibble

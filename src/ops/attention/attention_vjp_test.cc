#include "tests/support/oracle/attention_vjp.h"
#include "ops/attention/attention.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"

namespace nibble {
namespace {

using test::TestTensor;

struct Case {
  int64_t heads, kv_heads, size;
  float spread = 1;  // of q: larger scores, sharper probabilities
};

const std::vector<Case> kCases = {{2, 1, 32}, {4, 2, 16, 5}, {3, 3, 20}, {8, 1, 64}, {70, 1, 16}};

oracle::AttentionShape shape_of(const Case& c, int64_t t) {
  return {static_cast<size_t>(t), static_cast<size_t>(c.heads), static_cast<size_t>(c.kv_heads),
          static_cast<size_t>(c.size), 0};
}

struct Sequence {
  Sequence(Rng& rng, const Case& c, int64_t t)
      : dy(TestTensor::normal(rng, {t, c.heads, c.size})),
        q(TestTensor::normal(rng, {t, c.heads, c.size}, c.spread)),
        k(TestTensor::normal(rng, {t, c.kv_heads, c.size})),
        v(TestTensor::normal(rng, {t, c.kv_heads, c.size})),
        scale(1 / std::sqrt(static_cast<float>(c.size))) {}
  TestTensor dy, q, k, v;
  float scale;
};

struct Gradients {
  explicit Gradients(const Sequence& s) : dq(s.q.view.shape()), dk(s.k.view.shape()), dv(s.v.view.shape()) {}
  TestTensor dq, dk, dv;
};

void run(Context& cx, const Sequence& s, Gradients& out) {
  const test::Unchanged unchanged{&s.dy, &s.q, &s.k, &s.v};
  ops::attention_vjp(cx, s.dy.view, s.q.view, s.k.view, s.v.view, s.scale, out.dq.view, out.dk.view, out.dv.view);
}

oracle::AttentionGradients expected(const Case& c, const Sequence& s, int64_t t) {
  return oracle::attention_vjp(shape_of(c, t), s.dy.doubles(), s.q.doubles(), s.k.doubles(), s.v.doubles(), s.scale);
}

TEST(AttentionVjp, OracleMeetsComplexStep) {
  Rng rng(75);
  for (const Case& c : {Case{4, 2, 6}, Case{3, 1, 5, 4}}) {
    const Sequence s(rng, c, 7);
    const auto grad = expected(c, s, 7);
    const std::vector<double> dy = s.dy.doubles();
    test::expect_gradients(
        {{"q", s.q.doubles(), grad.dq}, {"k", s.k.doubles(), grad.dk}, {"v", s.v.doubles(), grad.dv}},
        [&](const auto& x) {
          return test::contract(dy, oracle::attention(shape_of(c, 7), x[0], x[1], x[2], static_cast<double>(s.scale)));
        });
  }
}

TEST(AttentionVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(76);
    for (const Case& c : kCases) {
      for (const int64_t t : {0, 1, 15, 16, 17, 63, 64, 65, 129, 300}) {
        SCOPED_TRACE(std::to_string(c.heads) + " heads, T=" + std::to_string(t));
        const Sequence s(rng, c, t);
        Gradients out(s);
        run(context.cx, s, out);
        const auto want = expected(c, s, t);
        test::expect_close(out.dq, want.dq, test::kAttentionVjp, "dq");
        test::expect_close(out.dk, want.dk, test::kAttentionVjp, "dk");
        test::expect_close(out.dv, want.dv, test::kAttentionVjp, "dv");
      }
    }
  });
}

TEST(AttentionVjp, BitsDoNotDependOnThreads) {
  test::for_each_target([] {
    test::TestContext one(1), three(3);
    Rng rng(77);
    for (const Case& c : kCases) {
      const Sequence s(rng, c, 200);
      Gradients a(s), b(s);
      run(one.cx, s, a);
      run(three.cx, s, b);
      const size_t reserved = three.cx.arena.reserved_bytes();
      run(three.cx, s, b);
      EXPECT_EQ(three.cx.arena.reserved_bytes(), reserved);
      test::expect_same_bits(a.dq.view, b.dq.view, "dq");
      test::expect_same_bits(a.dk.view, b.dk.view, "dk");
      test::expect_same_bits(a.dv.view, b.dv.view, "dv");
    }
  });
}

}  // namespace
}  // namespace nibble

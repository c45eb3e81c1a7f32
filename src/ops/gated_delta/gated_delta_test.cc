#include "ops/gated_delta/gated_delta.h"

#include "ops/gated_delta/delta_gates.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/gated_delta.h"

namespace nibble {
namespace {

using test::TestTensor;

struct Inputs {
  TestTensor q, k, v, g, beta, S;
};

struct Case {
  const char* name;
  int64_t key_heads, heads, key_size, value_size;
  float g_low, g_high, beta_low, beta_high;
};

const std::vector<Case> kCases = {
    {"one value head per key head", 2, 2, 16, 16, -2, -1e-4f, 0, 1},
    {"two, uneven sizes", 2, 4, 16, 32, -0.5f, -1e-4f, 0, 1},
    {"three, odd slices", 1, 3, 32, 48, -20, -1e-4f, 0, 1},
    {"no decay, full strength", 1, 2, 32, 16, 0, 0, 1, 1},
    {"no writing", 1, 1, 16, 32, -0.1f, 0, 0, 0},
    {"everything forgotten", 1, 2, 16, 16, -60, -60, 0, 1},
    {"forgetting and keeping mixed", 2, 2, 64, 64, -60, 0, 0, 1},
    {"real head size", 1, 1, 128, 128, -0.3f, -1e-3f, 0, 1},
};

Inputs inputs(Rng& rng, const Case& c, int64_t t) {
  Inputs in{.q = TestTensor::normal(rng, {t, c.key_heads, c.key_size}),
            .k = TestTensor::normal(rng, {t, c.key_heads, c.key_size}),
            .v = TestTensor::normal(rng, {t, c.heads, c.value_size}),
            .g = TestTensor::uniform(rng, {t, c.heads}, c.g_low, c.g_high),
            .beta = TestTensor::uniform(rng, {t, c.heads}, c.beta_low, c.beta_high),
            .S = TestTensor::normal(rng, {c.heads, c.key_size, c.value_size})};
  to_unit_rows(in.q, static_cast<size_t>(c.key_size));
  to_unit_rows(in.k, static_cast<size_t>(c.key_size));
  // Few tokens decay a lot in a trained model: keep a share of g near the upper end.
  for (size_t i = 0; i < in.g.values().size(); i += 2) in.g.values()[i] = std::max(c.g_low, c.g_high - 0.05f);
  return in;
}

float scale_of(const Case& c) {
  return 1 / std::sqrt(static_cast<float>(c.key_size));
}

/// Runs rows [begin, end) of the inputs on the given state.
void run(Context& cx, const Case& c, const Inputs& in, int64_t begin, int64_t end, TestTensor& S, TestTensor& y) {
  const auto rows = [&](const TestTensor& x) { return x.view.rows(begin, end); };
  Tensor out = rows(y);
  ops::gated_delta(cx, rows(in.q), rows(in.k), rows(in.v), rows(in.g), rows(in.beta), scale_of(c), S.view, out);
}

TEST(GatedDelta, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(81);
    for (const Case& c : kCases) {
      for (const int64_t t : test::kTokenCounts) {
        SCOPED_TRACE(c.name + (" T=" + std::to_string(t)));
        const Inputs in = inputs(rng, c, t);
        TestTensor S = in.S.copy(), y({t, c.heads, c.value_size});
        {
          const test::Unchanged unchanged{&in.q, &in.k, &in.v, &in.g, &in.beta};
          run(context.cx, c, in, 0, t, S, y);
        }
        std::vector<double> state = in.S.doubles();
        const oracle::DeltaShape shape{static_cast<size_t>(t), static_cast<size_t>(c.key_heads),
                                       static_cast<size_t>(c.heads), static_cast<size_t>(c.key_size),
                                       static_cast<size_t>(c.value_size)};
        const auto expected = oracle::gated_delta(shape, in.q.doubles(), in.k.doubles(), in.v.doubles(), in.g.doubles(),
                                                  in.beta.doubles(), scale_of(c), state);
        test::expect_close(y, expected, test::kGatedDelta, "y");
        test::expect_close(S, state, test::kGatedDelta, "S");
      }
    }
  });
}

/// One call of `tokens` rows against calls of `piece` rows, and one thread against three.
void same_bits_when_cut(int64_t tokens, const std::vector<int64_t>& pieces) {
  test::for_each_target([&] {
    test::TestContext one(1), three(3);
    Rng rng(82);
    for (const Case& c : kCases) {
      SCOPED_TRACE(c.name);
      const Inputs in = inputs(rng, c, tokens);
      TestTensor S = in.S.copy(), y({tokens, c.heads, c.value_size});
      run(three.cx, c, in, 0, tokens, S, y);
      for (const int64_t piece : pieces) {
        TestTensor cut_S = in.S.copy(), cut({tokens, c.heads, c.value_size});
        for (int64_t t = 0; t < tokens; t += piece) run(one.cx, c, in, t, std::min(t + piece, tokens), cut_S, cut);
        test::expect_same_bits(cut.view, y.view, "y");
        test::expect_same_bits(cut_S.view, S.view, "S");
      }
    }
  });
}

TEST(GatedDelta, OneCallIsManyCallsOfOne) {
  same_bits_when_cut(16, {1, 3, 15, 16});
}
TEST(GatedDelta, CutsAtMultiplesOf64ChangeNothing) {
  same_bits_when_cut(200, {64, 128, 200});
}
TEST(GatedDelta, AShortLastTileIsTheRecurrence) {
  same_bits_when_cut(64 + 16, {64});
}

TEST(DeltaGates, MeetsTheOracle) {
  test::TestContext context(2);
  Rng rng(83);
  for (const int64_t t : test::kTokenCounts) {
    TestTensor a = TestTensor::normal(rng, {t, 5}, 12), b = TestTensor::normal(rng, {t, 5}, 30);
    const TestTensor a_log = TestTensor::uniform(rng, {5}, -5, 3), dt_bias = TestTensor::normal(rng, {5}, 4);
    TestTensor g({t, 5}), beta({t, 5});
    ops::delta_gates(context.cx, a.view, b.view, a_log.view, dt_bias.view, g.view, beta.view);
    std::vector<double> expected_g, expected_beta;
    oracle::delta_gates(a.doubles(), b.doubles(), a_log.doubles(), dt_bias.doubles(), expected_g, expected_beta);
    test::expect_close(g, expected_g, test::kF32Op, "g");
    test::expect_close(beta, expected_beta, test::kF32Op, "beta");
    for (const float x : g.values()) EXPECT_LE(x, 0);
    for (const float x : beta.values()) EXPECT_TRUE(0 <= x && x <= 1);
    ops::delta_gates(context.cx, a.view, b.view, a_log.view, dt_bias.view, a.view, b.view);
    test::expect_same_bits(a.view, g.view, "g in place");
    test::expect_same_bits(b.view, beta.view, "beta in place");
  }
}

}  // namespace
}  // namespace nibble

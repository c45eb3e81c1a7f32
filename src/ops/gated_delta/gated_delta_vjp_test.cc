#include "tests/support/oracle/gated_delta_vjp.h"
#include "ops/gated_delta/delta_gates.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/gated_delta/gated_delta_vjp_cpu.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"

namespace nibble {
namespace {

using test::TestTensor;

struct Case {
  const char* name;
  int64_t key_heads, heads, key_size, value_size;
  float g_low, g_high, beta_low, beta_high;
  bool from_zero;  // S0 and dS_T are absent
};

const std::vector<Case> kCases = {
    {"one value head per key head", 2, 2, 16, 16, -2, -1e-4f, 0, 1, false},
    {"three, uneven sizes", 1, 3, 32, 48, -0.5f, -1e-4f, 0, 1, true},
    {"no decay, full strength", 1, 2, 16, 32, 0, 0, 1, 1, false},
    {"no writing", 1, 1, 16, 16, -0.1f, 0, 0, 0, false},
    {"everything forgotten", 1, 2, 16, 16, -50, -50, 0, 1, false},
    {"forgetting and keeping mixed", 2, 2, 16, 32, -50, 0, 0, 1, false},
};

struct Inputs {
  TestTensor dy, q, k, v, g, beta, S0, dS_T;
  float scale;
};

struct Gradients {
  explicit Gradients(const Inputs& in)
      : dq(in.q.view.shape()),
        dk(in.q.view.shape()),
        dv(in.v.view.shape()),
        dg(in.g.view.shape()),
        dbeta(in.g.view.shape()),
        dS0(in.S0.view.shape()) {}
  TestTensor dq, dk, dv, dg, dbeta, dS0;
};

Inputs inputs(Rng& rng, const Case& c, int64_t t) {
  Inputs in{.dy = TestTensor::normal(rng, {t, c.heads, c.value_size}),
            .q = TestTensor::normal(rng, {t, c.key_heads, c.key_size}),
            .k = TestTensor::normal(rng, {t, c.key_heads, c.key_size}),
            .v = TestTensor::normal(rng, {t, c.heads, c.value_size}),
            .g = TestTensor::uniform(rng, {t, c.heads}, c.g_low, c.g_high),
            .beta = TestTensor::uniform(rng, {t, c.heads}, c.beta_low, c.beta_high),
            .S0 = TestTensor::normal(rng, {c.heads, c.key_size, c.value_size}, c.from_zero ? 0.0f : 1.0f),
            .dS_T = TestTensor::normal(rng, {c.heads, c.key_size, c.value_size}, c.from_zero ? 0.0f : 1.0f),
            .scale = 1 / std::sqrt(static_cast<float>(c.key_size))};
  to_unit_rows(in.q, static_cast<size_t>(c.key_size));
  to_unit_rows(in.k, static_cast<size_t>(c.key_size));
  for (size_t i = 0; i < in.g.values().size(); i += 2) in.g.values()[i] = std::max(c.g_low, c.g_high - 0.05f);
  return in;
}

oracle::DeltaShape shape_of(const Case& c, int64_t t) {
  return {static_cast<size_t>(t), static_cast<size_t>(c.key_heads), static_cast<size_t>(c.heads),
          static_cast<size_t>(c.key_size), static_cast<size_t>(c.value_size)};
}

void run(Context& cx, const Case& c, const Inputs& in, Gradients& out) {
  const Tensor none, S0 = c.from_zero ? none : in.S0.view, dS_T = c.from_zero ? none : in.dS_T.view;
  ops::gated_delta_vjp(cx, in.dy.view, in.q.view, in.k.view, in.v.view, in.g.view, in.beta.view, in.scale, S0, dS_T,
                       out.dq.view, out.dk.view, out.dv.view, out.dg.view, out.dbeta.view, out.dS0.view);
}

oracle::DeltaGradients expected(const Case& c, const Inputs& in, int64_t t) {
  return oracle::gated_delta_vjp(shape_of(c, t), in.dy.doubles(), in.q.doubles(), in.k.doubles(), in.v.doubles(),
                                 in.g.doubles(), in.beta.doubles(), in.scale, in.S0.doubles(), in.dS_T.doubles());
}

TEST(GatedDeltaVjp, OracleMeetsComplexStep) {
  Rng rng(91);
  for (Case c : kCases) {
    SCOPED_TRACE(c.name);
    const int64_t t = 9;
    c.key_size = 6, c.value_size = 5;  // the oracle takes any size
    const Inputs in = inputs(rng, c, t);
    const auto grad = expected(c, in, t);
    const std::vector<double> dy = in.dy.doubles(), dS_T = in.dS_T.doubles();
    test::expect_gradients({{"q", in.q.doubles(), grad.dq},
                            {"k", in.k.doubles(), grad.dk},
                            {"v", in.v.doubles(), grad.dv},
                            {"g", in.g.doubles(), grad.dg},
                            {"beta", in.beta.doubles(), grad.dbeta},
                            {"S0", in.S0.doubles(), grad.dS0}},
                           [&](const auto& x) {
                             auto S = x[5];
                             const auto y = oracle::gated_delta(shape_of(c, t), x[0], x[1], x[2], x[3], x[4],
                                                                static_cast<double>(in.scale), S);
                             return test::contract(dy, y) + test::contract(dS_T, S);
                           });
  }
}

void expect_gradients_close(const Gradients& out, const oracle::DeltaGradients& want) {
  test::expect_close(out.dq, want.dq, test::kGatedDelta, "dq");
  test::expect_close(out.dk, want.dk, test::kGatedDelta, "dk");
  test::expect_close(out.dv, want.dv, test::kGatedDelta, "dv");
  test::expect_close(out.dg, want.dg, test::kGatedDelta, "dg");
  test::expect_close(out.dbeta, want.dbeta, test::kGatedDelta, "dbeta");
  test::expect_close(out.dS0, want.dS0, test::kGatedDelta, "dS0");
}

TEST(GatedDeltaVjp, MeetsTheOracle) {
  test::for_each_target([] {
    test::TestContext context(2);
    Rng rng(92);
    for (const Case& c : kCases) {
      for (const int64_t t : {0, 1, 15, 16, 17, 63, 64, 65, 129, 1000, 2048}) {
        SCOPED_TRACE(c.name + (" T=" + std::to_string(t)));
        const Inputs in = inputs(rng, c, t);
        Gradients out(in);
        {
          const test::Unchanged unchanged{&in.dy, &in.q, &in.k, &in.v, &in.g, &in.beta, &in.S0, &in.dS_T};
          run(context.cx, c, in, out);
        }
        expect_gradients_close(out, expected(c, in, t));
        // Nothing was there to decay, so not even rounding may be left.
        for (int64_t h = 0; c.from_zero && t > 0 && h < c.heads; ++h) EXPECT_EQ(out.dg.view.f32()[h], 0);
      }
    }
  });
}

TEST(GatedDeltaVjp, BitsDoNotDependOnThreads) {
  test::for_each_target([] {
    test::TestContext one(1), two(2);
    Rng rng(93);
    for (const Case& c : kCases) {
      const Inputs in = inputs(rng, c, 200);
      Gradients a(in), b(in);
      run(one.cx, c, in, a);
      run(two.cx, c, in, b);
      const size_t reserved = two.cx.arena.reserved_bytes();
      run(two.cx, c, in, b);
      EXPECT_EQ(two.cx.arena.reserved_bytes(), reserved);
      test::expect_same_bits(a.dq.view, b.dq.view, "dq");
      test::expect_same_bits(a.dk.view, b.dk.view, "dk");
      test::expect_same_bits(a.dv.view, b.dv.view, "dv");
      test::expect_same_bits(a.dg.view, b.dg.view, "dg");
      test::expect_same_bits(a.dbeta.view, b.dbeta.view, "dbeta");
      test::expect_same_bits(a.dS0.view, b.dS0.view, "dS0");
    }
  });
}

// Both kernels on the same tile, at every length that either may meet.
TEST(GatedDeltaVjp, ChunkedIsTheRecurrence) {
  test::for_each_target([] {
    Rng rng(94);
    for (const Case& c : kCases) {
      for (const int64_t t : {1, 16, 17, 50, 64}) {
        SCOPED_TRACE(c.name + (" T=" + std::to_string(t)));
        const Case single{c.name, 1, 1, c.key_size, c.value_size, c.g_low, c.g_high, c.beta_low, c.beta_high, false};
        const Inputs in = inputs(rng, single, t);
        const auto run_kernel = [&](bool chunked, Gradients& out) {
          std::copy_n(in.dS_T.view.f32(), in.dS_T.view.elements(), out.dS0.view.f32());
          const ops::DeltaHeadVjp tile{.head = {.rows = t,
                                                .key_size = c.key_size,
                                                .value_size = c.value_size,
                                                .q = in.q.view.f32(),
                                                .k = in.k.view.f32(),
                                                .key_stride = c.key_size,
                                                .v = in.v.view.f32(),
                                                .y = nullptr,
                                                .value_stride = c.value_size,
                                                .g = in.g.view.f32(),
                                                .beta = in.beta.view.f32(),
                                                .gate_stride = 1,
                                                .scale = in.scale,
                                                .state = in.S0.view.f32()},
                                       .dy = in.dy.view.f32(),
                                       .dq = out.dq.view.f32(),
                                       .dk = out.dk.view.f32(),
                                       .dkey_stride = c.key_size,
                                       .dv = out.dv.view.f32(),
                                       .dg = out.dg.view.f32(),
                                       .dbeta = out.dbeta.view.f32(),
                                       .dS = out.dS0.view.f32()};
          TestTensor tape({ops::delta_tape_floats(c.value_size)});
          TestTensor scratch({std::max(ops::delta_chunk_vjp_floats(c.key_size, c.value_size),
                                       ops::delta_recurrent_vjp_floats(t, c.key_size, c.value_size))});
          if (chunked) {
            ops::gated_delta_chunk_tape_cpu(tile.head, nullptr, tape.view.f32(), scratch.view.f32());
            ops::gated_delta_chunk_vjp_cpu(tile, tape.view.f32(), scratch.view.f32());
          } else {
            ops::gated_delta_recurrent_vjp_cpu(tile, scratch.view.f32());
          }
          EXPECT_TRUE(tape.guards_intact() && scratch.guards_intact());
        };
        Gradients chunked(in), recurrent(in);
        run_kernel(true, chunked);
        run_kernel(false, recurrent);
        expect_gradients_close(chunked, {recurrent.dq.doubles(), recurrent.dk.doubles(), recurrent.dv.doubles(),
                                         recurrent.dg.doubles(), recurrent.dbeta.doubles(), recurrent.dS0.doubles()});
      }
    }
  });
}

struct GateInputs {
  TestTensor dg, dbeta, a, b, a_log, dt_bias;
};

GateInputs gate_inputs(Rng& rng, int64_t t, int64_t heads) {
  return {TestTensor::normal(rng, {t, heads}),      TestTensor::normal(rng, {t, heads}),
          TestTensor::normal(rng, {t, heads}, 12),  TestTensor::normal(rng, {t, heads}, 10),
          TestTensor::uniform(rng, {heads}, -5, 3), TestTensor::normal(rng, {heads}, 4)};
}

oracle::GateGradients expected(const GateInputs& in) {
  return oracle::delta_gates_vjp(in.dg.doubles(), in.dbeta.doubles(), in.a.doubles(), in.b.doubles(),
                                 in.a_log.doubles(), in.dt_bias.doubles());
}

TEST(DeltaGatesVjp, OracleMeetsComplexStep) {
  Rng rng(95);
  const GateInputs in = gate_inputs(rng, 17, 3);
  const auto grad = expected(in);
  const std::vector<double> dg = in.dg.doubles(), dbeta = in.dbeta.doubles();
  test::expect_gradients({{"a", in.a.doubles(), grad.da},
                          {"b", in.b.doubles(), grad.db},
                          {"a_log", in.a_log.doubles(), grad.da_log},
                          {"dt_bias", in.dt_bias.doubles(), grad.ddt_bias}},
                         [&](const auto& x) {
                           auto g = x[0], beta = x[1];
                           oracle::delta_gates(x[0], x[1], x[2], x[3], g, beta);
                           return test::contract(dg, g) + test::contract(dbeta, beta);
                         });
}

TEST(DeltaGatesVjp, MeetsTheOracleAndAddsToParameters) {
  test::TestContext one(1), two(2);
  Rng rng(96);
  for (const int64_t t : {0, 1, 63, 64, 65, 1000}) {
    const GateInputs in = gate_inputs(rng, t, 5);
    const auto want = expected(in);
    TestTensor bits[2][4];
    for (const int threads : {1, 2}) {
      Context& cx = threads == 1 ? one.cx : two.cx;
      TestTensor da({t, 5}), db({t, 5}), da_log({5}), ddt_bias({5});
      std::ranges::fill(da_log.values(), 3.0f);
      std::ranges::fill(ddt_bias.values(), -2.0f);
      {
        const test::Unchanged unchanged{&in.dg, &in.dbeta, &in.a, &in.b, &in.a_log, &in.dt_bias};
        ops::delta_gates_vjp(cx, in.dg.view, in.dbeta.view, in.a.view, in.b.view, in.a_log.view, in.dt_bias.view,
                             da.view, db.view, da_log.view, ddt_bias.view);
      }
      test::expect_close(da, want.da, test::kF32Op, "da");
      test::expect_close(db, want.db, test::kF32Op, "db");
      auto log_sum = want.da_log, bias_sum = want.ddt_bias;
      for (double& x : log_sum) x += 3;
      for (double& x : bias_sum) x -= 2;
      test::expect_close(da_log, log_sum, test::kF32Op, "da_log");
      test::expect_close(ddt_bias, bias_sum, test::kF32Op, "ddt_bias");
      TestTensor* kept = bits[threads - 1];
      kept[0] = std::move(da), kept[1] = std::move(db), kept[2] = std::move(da_log), kept[3] = std::move(ddt_bias);
    }
    for (int i = 0; i < 4; ++i) test::expect_same_bits(bits[0][i].view, bits[1][i].view, "threads");
  }
}

}  // namespace
}  // namespace nibble

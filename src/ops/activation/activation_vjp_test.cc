#include "ops/activation/sigmoid_gate.h"
#include "ops/activation/swiglu.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_test.h"
#include "tests/support/oracle/activation.h"

namespace nibble {
namespace {

using test::TestTensor;

void swiglu_vjp(Context& cx, const Tensor& dy, const Tensor& gate, const Tensor& x, Tensor& dgate, Tensor& dx) {
  ops::swiglu_vjp(cx, dy, gate, x, dgate, dx);
}
void sigmoid_gate_vjp(Context& cx, const Tensor& dy, const Tensor& gate, const Tensor& x, Tensor& dgate, Tensor& dx) {
  ops::sigmoid_gate_vjp(cx, dy, x, gate, dx, dgate);
}

TEST(ActivationVjp, OraclesMeetComplexStep) {
  Rng rng(121);
  const std::vector<double> gate = TestTensor::uniform(rng, {40}, -30, 30).doubles();
  const std::vector<double> x = TestTensor::normal(rng, {40}).doubles(), dy = TestTensor::normal(rng, {40}).doubles();
  const oracle::GateVjp silu = oracle::swiglu_vjp(dy, gate, x), sigmoid = oracle::sigmoid_gate_vjp(dy, gate, x);
  test::expect_gradients({{"gate", gate, silu.dgate}, {"up", x, silu.dx}},
                         [&](const auto& in) { return test::contract(dy, oracle::swiglu(in[0], in[1])); });
  test::expect_gradients({{"gate", gate, sigmoid.dgate}, {"x", x, sigmoid.dx}},
                         [&](const auto& in) { return test::contract(dy, oracle::sigmoid_gate(in[0], in[1])); });
}

template <class Op, class Oracle>
void meets(const Op& op, const Oracle& oracle) {
  test::for_each_target([&] {
    test::TestContext context(2), one(1);
    Rng rng(122);
    for (const int64_t t : test::kTokenCounts) {
      const Shape shape{t, 97};
      TestTensor gate = TestTensor::uniform(rng, shape, -120, 120), x = TestTensor::normal(rng, shape, 3);
      for (size_t i = 0; i < gate.values().size(); i += 3) gate.values()[i] *= 0.02f;
      TestTensor dy = TestTensor::normal(rng, shape), dgate(shape), dx(shape), dgate_one(shape), dx_one(shape);
      {
        const test::Unchanged unchanged{&dy, &gate, &x};
        op(context.cx, dy.view, gate.view, x.view, dgate.view, dx.view);
        op(one.cx, dy.view, gate.view, x.view, dgate_one.view, dx_one.view);
      }
      const oracle::GateVjp expected = oracle(dy.doubles(), gate.doubles(), x.doubles());
      test::expect_close(dgate, expected.dgate, test::kF32Op, "dgate");
      test::expect_close(dx, expected.dx, test::kF32Op, "dx");
      test::expect_same_bits(dgate.view, dgate_one.view, "dgate of one thread");
      test::expect_same_bits(dx.view, dx_one.view, "dx of one thread");
      op(context.cx, dy.view, gate.view, x.view, gate.view, x.view);
      test::expect_same_bits(gate.view, dgate.view, "dgate in place");
      test::expect_same_bits(x.view, dx.view, "dx in place");
    }
  });
}

TEST(SwigluVjp, MeetsTheOracle) {
  meets(swiglu_vjp, oracle::swiglu_vjp);
}

TEST(SigmoidGateVjp, MeetsTheOracle) {
  meets(sigmoid_gate_vjp, oracle::sigmoid_gate_vjp);
}

}  // namespace
}  // namespace nibble

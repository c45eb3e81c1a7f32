// The elementwise ops: swiglu, sigmoid_gate, their gradients, and add.
#include "ops/activation/add.h"
#include "ops/activation/sigmoid_gate.h"
#include "ops/activation/swiglu.h"
#include "ops/backend.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/activation/activation_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

void swiglu_range(const float* gate, const float* up, float* y, int64_t n) {
  map(gate, up, y, n, [](V g, V u) HWY_ATTR { return hn::Mul(silu(g), u); });
}

void sigmoid_gate_range(const float* x, const float* gate, float* y, int64_t n) {
  map(x, gate, y, n, [](V v, V g) HWY_ATTR { return hn::Mul(v, sigmoid(g)); });
}

void swiglu_vjp_range(const float* dy, const float* gate, const float* up, float* dgate, float* dup, int64_t n) {
  for_vectors(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const V d = load(dy + i), u = load(up + i);
    const GateSlope g = silu_slope(load(gate + i));
    store(hn::Mul(hn::Mul(d, u), g.slope), dgate + i);
    store(hn::Mul(d, g.value), dup + i);
  });
}

void sigmoid_gate_vjp_range(const float* dy, const float* x, const float* gate, float* dx, float* dgate, int64_t n) {
  for_vectors(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const V d = load(dy + i), v = load(x + i);
    const GateSlope g = sigmoid_slope(load(gate + i));
    store(hn::Mul(d, g.value), dx + i);
    store(hn::Mul(hn::Mul(d, v), g.slope), dgate + i);
  });
}

void add_range(const float* a, const float* b, float* y, int64_t n) {
  map(a, b, y, n, [](V u, V v) HWY_ATTR { return hn::Add(u, v); });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(swiglu_range);
HWY_EXPORT(sigmoid_gate_range);
HWY_EXPORT(swiglu_vjp_range);
HWY_EXPORT(sigmoid_gate_vjp_range);
HWY_EXPORT(add_range);

/// Runs kernel(a, b, y, n) over slices of three tensors of one shape.
template <class Kernel>
void elementwise(Context& cx, const char* op, const Tensor& a, const Tensor& b, const Tensor& y, int64_t cost,
                 const Kernel& kernel) {
  require_cpu(op, y);
  NIBBLE_CHECK(a.shape() == y.shape() && b.shape() == y.shape());
  const float *in_a = a.f32(), *in_b = b.f32();
  float* out = y.f32();
  cx.pool.parallel_for(y.elements(), row_grain(cost), [&](int64_t begin, int64_t end) {
    kernel(in_a + begin, in_b + begin, out + begin, end - begin);
  });
}

/// Runs kernel(dy, a, b, da, db, n) likewise.
template <class Kernel>
void elementwise_vjp(Context& cx, const char* op, const Tensor& dy, const Tensor& a, const Tensor& b, const Tensor& da,
                     const Tensor& db, int64_t cost, const Kernel& kernel) {
  require_cpu(op, dy);
  const Shape& shape = dy.shape();
  NIBBLE_CHECK(a.shape() == shape && b.shape() == shape && da.shape() == shape && db.shape() == shape);
  const float *upstream = dy.f32(), *in_a = a.f32(), *in_b = b.f32();
  float *out_a = da.f32(), *out_b = db.f32();
  cx.pool.parallel_for(dy.elements(), row_grain(cost), [&](int64_t begin, int64_t end) {
    kernel(upstream + begin, in_a + begin, in_b + begin, out_a + begin, out_b + begin, end - begin);
  });
}

}  // namespace

void swiglu(Context& cx, const Tensor& gate, const Tensor& up, Tensor& y) {
  elementwise(cx, "swiglu", gate, up, y, 4, HWY_DYNAMIC_DISPATCH(swiglu_range));
}

void sigmoid_gate(Context& cx, const Tensor& x, const Tensor& gate, Tensor& y) {
  elementwise(cx, "sigmoid_gate", x, gate, y, 4, HWY_DYNAMIC_DISPATCH(sigmoid_gate_range));
}

void swiglu_vjp(Context& cx, const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor& dgate, Tensor& dup) {
  elementwise_vjp(cx, "swiglu_vjp", dy, gate, up, dgate, dup, 8, HWY_DYNAMIC_DISPATCH(swiglu_vjp_range));
}

void sigmoid_gate_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& gate, Tensor& dx, Tensor& dgate) {
  elementwise_vjp(cx, "sigmoid_gate_vjp", dy, x, gate, dx, dgate, 8, HWY_DYNAMIC_DISPATCH(sigmoid_gate_vjp_range));
}

void add(Context& cx, const Tensor& a, Tensor& b) {
  elementwise(cx, "add", a, b, b, 1, HWY_DYNAMIC_DISPATCH(add_range));
}

}  // namespace nibble::ops
#endif

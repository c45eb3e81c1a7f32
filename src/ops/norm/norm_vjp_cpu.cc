// The gradients of rms_norm, l2_norm and gated_rms_norm.
#include <cmath>

#include "ops/backend.h"
#include "ops/norm/gated_rms_norm.h"
#include "ops/norm/l2_norm.h"
#include "ops/norm/rms_norm.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/norm/norm_vjp_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

// One row at a time, in two passes: the sum over the row, then its elements. An element is read before it is written,
// so results may take the place of inputs. Lanes behind the end hold dy = 0 and add nothing.

void rms_norm_vjp_rows(const float* dy, const float* x, const float* w, float eps, Gain gain, float* dx, float* dw,
                       int64_t rows, int64_t n) {
  const V offset = hn::Set(D(), gain == Gain::one_plus ? 1.0f : 0.0f);
  for (int64_t row = 0; row < rows; ++row, dy += n, x += n, dx += n) {
    const float r = 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps);
    const V scale = hn::Set(D(), r);
    V dot = hn::Zero(D());
    for_vectors(n, [&](int64_t i, auto load, auto) HWY_ATTR {
      const V u = hn::Mul(load(dy + i), hn::Add(load(w + i), offset));
      dot = hn::MulAdd(u, hn::Mul(load(x + i), scale), dot);
    });
    const V mean = hn::Set(D(), sum_lanes(dot) / static_cast<float>(n));
    for_vectors(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
      const V d = load(dy + i), normed = hn::Mul(load(x + i), scale);
      const V u = hn::Mul(d, hn::Add(load(w + i), offset));
      store(hn::MulAdd(d, normed, load(dw + i)), dw + i);
      store(hn::Mul(scale, hn::NegMulAdd(normed, mean, u)), dx + i);
    });
  }
}

void l2_norm_vjp_rows(const float* dy, const float* x, float eps, float* dx, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, dy += n, x += n, dx += n) {
    const V scale = hn::Set(D(), 1.0f / std::sqrt(sum_of_squares(x, n) + eps));
    V dot = hn::Zero(D());
    for_vectors(n, [&](int64_t i, auto load, auto)
                       HWY_ATTR { dot = hn::MulAdd(load(dy + i), hn::Mul(load(x + i), scale), dot); });
    const V sum = hn::Set(D(), sum_lanes(dot));
    for_vectors(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
      const V y = hn::Mul(load(x + i), scale);
      store(hn::Mul(scale, hn::NegMulAdd(y, sum, load(dy + i))), dx + i);
    });
  }
}

/// The operands of one row of gated_rms_norm_vjp.
struct GatedRow {
  const float *dy, *x, *z, *w;
  float *dx, *dz, *dw;
};

template <class Slope>
HWY_INLINE void gated_rms_norm_vjp_row(const GatedRow& row, float eps, int64_t n, const Slope& slope) {
  const V scale = hn::Set(D(), 1.0f / std::sqrt(sum_of_squares(row.x, n) / static_cast<float>(n) + eps));
  V dot = hn::Zero(D());
  for_vectors(n, [&](int64_t i, auto load, auto) HWY_ATTR {
    const V u = hn::Mul(hn::Mul(load(row.dy + i), load(row.w + i)), slope(load(row.z + i)).value);
    dot = hn::MulAdd(u, hn::Mul(load(row.x + i), scale), dot);
  });
  const V mean = hn::Set(D(), sum_lanes(dot) / static_cast<float>(n));
  for_vectors(n, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const V d = load(row.dy + i), w = load(row.w + i), normed = hn::Mul(load(row.x + i), scale);
    const GateSlope gate = slope(load(row.z + i));
    const V gated = hn::Mul(d, gate.value);
    store(hn::MulAdd(gated, normed, load(row.dw + i)), row.dw + i);
    store(hn::Mul(hn::Mul(hn::Mul(d, w), normed), gate.slope), row.dz + i);
    store(hn::Mul(scale, hn::NegMulAdd(normed, mean, hn::Mul(gated, w))), row.dx + i);
  });
}

void gated_rms_norm_vjp_rows(const float* dy, const float* x, const float* z, const float* w, float eps, Gate gate,
                             float* dx, float* dz, float* dw, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, dy += n, x += n, z += n, dx += n, dz += n) {
    const GatedRow operands{dy, x, z, w, dx, dz, dw};
    if (gate == Gate::silu) {
      gated_rms_norm_vjp_row(operands, eps, n, [](V v) HWY_ATTR { return silu_slope(v); });
    } else {
      gated_rms_norm_vjp_row(operands, eps, n, [](V v) HWY_ATTR { return sigmoid_slope(v); });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(rms_norm_vjp_rows);
HWY_EXPORT(l2_norm_vjp_rows);
HWY_EXPORT(gated_rms_norm_vjp_rows);

bool is_gain(const Tensor& dw, int64_t n) {
  return dw.empty() || dw.shape() == Shape{n};
}

}  // namespace

void rms_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& w, float eps, Gain gain, Tensor& dx,
                  Tensor& dw) {
  require_cpu("rms_norm_vjp", dx);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(dy.shape() == x.shape() && dx.shape() == x.shape() && w.shape() == Shape{n} && is_gain(dw, n));
  const float *upstream = dy.f32(), *in = x.f32(), *weight = w.f32();
  float* out = dx.f32();
  sum_over_rows(cx, x.elements() / n, 2 * n, n, dw, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(rms_norm_vjp_rows)
    (upstream + begin * n, in + begin * n, weight, eps, gain, out + begin * n, partial, end - begin, n);
  });
}

void l2_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, float eps, Tensor& dx) {
  require_cpu("l2_norm_vjp", dx);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(dy.shape() == x.shape() && dx.shape() == x.shape());
  const float *upstream = dy.f32(), *in = x.f32();
  float* out = dx.f32();
  cx.pool.parallel_for(x.elements() / n, row_grain(2 * n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(l2_norm_vjp_rows)
    (upstream + begin * n, in + begin * n, eps, out + begin * n, end - begin, n);
  });
}

void gated_rms_norm_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& z, const Tensor& w, float eps,
                        Gate gate, Tensor& dx, Tensor& dz, Tensor& dw) {
  require_cpu("gated_rms_norm_vjp", dx);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(dy.shape() == x.shape() && z.shape() == x.shape() && w.shape() == Shape{n});
  NIBBLE_CHECK(dx.shape() == x.shape() && dz.shape() == x.shape() && is_gain(dw, n));
  const float *upstream = dy.f32(), *in = x.f32(), *in_z = z.f32(), *weight = w.f32();
  float *out = dx.f32(), *out_z = dz.f32();
  sum_over_rows(cx, x.elements() / n, 12 * n, n, dw, [&](int64_t begin, int64_t end, float* partial) {
    const int64_t at = begin * n;
    HWY_DYNAMIC_DISPATCH(gated_rms_norm_vjp_rows)
    (upstream + at, in + at, in_z + at, weight, eps, gate, out + at, out_z + at, partial, end - begin, n);
  });
}

}  // namespace nibble::ops
#endif

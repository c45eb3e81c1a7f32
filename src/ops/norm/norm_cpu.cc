// The three norms of the last dimension: rms_norm, l2_norm and gated_rms_norm.
#include <cmath>

#include "ops/backend.h"
#include "ops/norm/gated_rms_norm.h"
#include "ops/norm/l2_norm.h"
#include "ops/norm/rms_norm.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/norm/norm_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

V broadcast_rstd(const float* x, int64_t n, float eps) {
  return hn::Set(D(), 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(n) + eps));
}

void rms_norm_rows(const float* x, const float* w, float eps, Gain gain, float* y, int64_t rows, int64_t n) {
  const V offset = hn::Set(D(), gain == Gain::one_plus ? 1.0f : 0.0f);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const V rstd = broadcast_rstd(x, n, eps);
    map(x, w, y, n, [&](V v, V g) HWY_ATTR { return hn::Mul(hn::Mul(v, rstd), hn::Add(g, offset)); });
  }
}

void l2_norm_rows(const float* x, float eps, float* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const V scale = hn::Set(D(), 1.0f / std::sqrt(sum_of_squares(x, n) + eps));
    map(x, y, n, [&](V v) HWY_ATTR { return hn::Mul(v, scale); });
  }
}

void gated_rms_norm_rows(const float* x, const float* z, const float* w, float eps, Gate gate, float* y, int64_t rows,
                         int64_t n) {
  for (int64_t r = 0; r < rows; ++r, x += n, z += n, y += n) {
    const V rstd = broadcast_rstd(x, n, eps);
    const auto normed = [&](V v, V g) HWY_ATTR { return hn::Mul(hn::Mul(v, rstd), g); };
    if (gate == Gate::silu) {
      map(x, w, z, y, n, [&](V v, V g, V s) HWY_ATTR { return hn::Mul(normed(v, g), silu(s)); });
    } else {
      map(x, w, z, y, n, [&](V v, V g, V s) HWY_ATTR { return hn::Mul(normed(v, g), sigmoid(s)); });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(l2_norm_rows);
HWY_EXPORT(gated_rms_norm_rows);

}  // namespace

void rms_norm(Context& cx, const Tensor& x, const Tensor& w, float eps, Gain gain, Tensor& y) {
  require_cpu("rms_norm", y);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(y.shape() == x.shape() && w.shape() == Shape{n});
  const float *in = x.f32(), *weight = w.f32();
  float* out = y.f32();
  cx.pool.parallel_for(x.elements() / n, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(in + begin * n, weight, eps, gain, out + begin * n, end - begin, n);
  });
}

void l2_norm(Context& cx, const Tensor& x, float eps, Tensor& y) {
  require_cpu("l2_norm", y);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(y.shape() == x.shape());
  const float* in = x.f32();
  float* out = y.f32();
  cx.pool.parallel_for(x.elements() / n, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(l2_norm_rows)(in + begin * n, eps, out + begin * n, end - begin, n);
  });
}

void gated_rms_norm(Context& cx, const Tensor& x, const Tensor& z, const Tensor& w, float eps, Gate gate, Tensor& y) {
  require_cpu("gated_rms_norm", y);
  const int64_t n = last_dim(x);
  NIBBLE_CHECK(y.shape() == x.shape() && z.shape() == x.shape() && w.shape() == Shape{n});
  const float *in = x.f32(), *in_z = z.f32(), *weight = w.f32();
  float* out = y.f32();
  cx.pool.parallel_for(x.elements() / n, row_grain(4 * n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_rms_norm_rows)
    (in + begin * n, in_z + begin * n, weight, eps, gate, out + begin * n, end - begin, n);
  });
}

}  // namespace nibble::ops
#endif

#include <algorithm>
#include <cmath>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "ops/rope/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rope/rope_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// Turns the pairs (x[i], x[half + i]) of one head by the angles of its position.
void rotate_head(const float* x, const float* cosine, const float* sine, float* y, int64_t half) {
  for_vectors(half, [&](int64_t i, auto load, auto store) HWY_ATTR {
    const V a = load(x + i), b = load(x + half + i), c = load(cosine + i), s = load(sine + i);
    store(hn::NegMulAdd(b, s, hn::Mul(a, c)), y + i);
    store(hn::MulAdd(a, s, hn::Mul(b, c)), y + half + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {
HWY_EXPORT(rotate_head);

/// Rotation by `direction` times the angles of rope.
void rotate(Context& cx, const Tensor& x, int64_t first_position, int64_t rotary_dim, double theta, double direction,
            const Tensor& y) {
  NIBBLE_CHECK(x.rank() == 3 && y.shape() == x.shape() && first_position >= 0);
  const int64_t rows = x.dim(0), heads = x.dim(1), size = x.dim(2), half = rotary_dim / 2;
  NIBBLE_CHECK(rotary_dim % 2 == 0 && 0 <= rotary_dim && rotary_dim <= size);
  const float* in = x.f32();
  float* out = y.f32();

  Arena::Scope scope(cx.arena);
  const Tensor cosines = cx.arena.f32({rows, half}), sines = cx.arena.f32({rows, half});
  float *cosine = cosines.f32(), *sine = sines.f32();

  constexpr int64_t kStepsPerAngle = 64;
  cx.pool.parallel_for(half, row_grain(rows * kStepsPerAngle), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
      for (int64_t t = 0; t < rows; ++t) {
        const double angle = static_cast<double>(first_position + t) * frequency;
        cosine[t * half + i] = static_cast<float>(std::cos(angle));
        sine[t * half + i] = static_cast<float>(direction * std::sin(angle));
      }
    }
  });
  cx.pool.parallel_for(rows, row_grain(heads * size), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (t * heads + h) * size;
        HWY_DYNAMIC_DISPATCH(rotate_head)(in + at, cosine + t * half, sine + t * half, out + at, half);
        if (out != in) std::copy(in + at + rotary_dim, in + at + size, out + at + rotary_dim);
      }
    }
  });
}

}  // namespace

void rope(Context& cx, const Tensor& x, int64_t first_position, int64_t rotary_dim, double theta, Tensor& y) {
  require_cpu("rope", y);
  rotate(cx, x, first_position, rotary_dim, theta, 1, y);
}

void rope_vjp(Context& cx, const Tensor& dy, int64_t first_position, int64_t rotary_dim, double theta, Tensor& dx) {
  require_cpu("rope_vjp", dx);
  rotate(cx, dy, first_position, rotary_dim, theta, -1, dx);
}

}  // namespace nibble::ops
#endif

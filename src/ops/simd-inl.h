// Vector helpers of the CPU kernels. Included once per SIMD target, from inside a file that foreach_target.h repeats.
#if defined(NIBBLE_OPS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_SIMD_INL_H_
#undef NIBBLE_OPS_SIMD_INL_H_
#else
#define NIBBLE_OPS_SIMD_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "tensor/numeric.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// f32 vectors of at most 16 lanes, so that 16 elements, an NVFP4 block, are always a whole number of vectors.
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = hn::MaxLanes(D());
constexpr int64_t kVectorsPer16 = 16 / kLanes;

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE float sum_lanes(V v) {
  return hn::GetLane(v);
}
#else
using D4 = hn::FixedTag<float, 4>;
/// Halves are added until four lanes are left.
template <class DV>
HWY_INLINE hn::Vec<D4> fold_to_4(DV, hn::Vec<DV> v) {
  if constexpr (hn::MaxLanes(DV()) == 4) {
    return v;
  } else {
    const hn::Half<DV> half;
    return fold_to_4(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
HWY_INLINE float sum_lanes(V v) {
  const auto four = fold_to_4(D(), v);
  const auto two = hn::Add(four, hn::Shuffle1032(four));
  return hn::GetLane(hn::Add(two, hn::Shuffle2301(two)));
}
#endif

/// out[i] = sum_lanes(v[i]) for i < n <= 4, to the same bits; four together take half the time. `out` is aligned.
template <int n>
HWY_INLINE void sum_lanes_of(const V (&v)[n], float* out) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (n == 4) {
    const D4 d;
    const auto fold_two = [&](V a, V b) HWY_ATTR {
      const auto first = fold_to_4(D(), a), second = fold_to_4(D(), b);
      return hn::Add(hn::ConcatLowerLower(d, second, first), hn::ConcatUpperUpper(d, second, first));
    };
    const auto low = fold_two(v[0], v[1]), high = fold_two(v[2], v[3]);
    hn::Store(hn::Add(hn::ConcatEven(d, high, low), hn::ConcatOdd(d, high, low)), d, out);
    return;
  }
#endif
  for (int i = 0; i < n; ++i) out[i] = sum_lanes(v[i]);
}
HWY_INLINE float max_lanes(V v) {
  return hn::GetLane(hn::MaxOfLanes(D(), v));
}

/// kLanes f32 or BF16 numbers from a mapped file, at any alignment.
HWY_INLINE V load_f32(const void* p) {
#if HWY_TARGET == HWY_SCALAR
  float x;
  std::memcpy(&x, p, sizeof x);
  return hn::Set(D(), x);
#else
  return hn::LoadU(D(), static_cast<const float*>(p));
#endif
}
HWY_INLINE V load_bf16(const void* p) {
#if HWY_TARGET == HWY_SCALAR
  uint16_t x;
  std::memcpy(&x, p, sizeof x);
  return hn::Set(D(), bf16_to_f32(x));
#else
  const auto bits = hn::LoadU(hn::Rebind<uint16_t, D>(), static_cast<const uint16_t*>(p));
  return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), bits)));
#endif
}

/// The first n < kLanes elements at p, then `fill`; touches no byte beyond them.
HWY_INLINE V load_some(const float* p, int64_t n, float fill = 0.0f) {
  HWY_ALIGN float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = fill;
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(float));
  return hn::Load(D(), lanes);
}

HWY_INLINE void store_some(V v, float* p, int64_t n) {
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, D(), lanes);
  std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(float));
}

/// y[i] = f(a[i]). An element's bits do not depend on where it stands: the tail runs through the same vector code.
template <class F>
HWY_INLINE void map(const float* a, float* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(f(hn::LoadU(D(), a + i)), D(), y + i);
  if (i < n) store_some(f(load_some(a + i, n - i)), y + i, n - i);
}

/// y[i] = f(a[i], b[i]).
template <class F>
HWY_INLINE void map(const float* a, const float* b, float* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(f(hn::LoadU(D(), a + i), hn::LoadU(D(), b + i)), D(), y + i);
  if (i < n) store_some(f(load_some(a + i, n - i), load_some(b + i, n - i)), y + i, n - i);
}

/// y[i] = f(a[i], b[i], c[i]).
template <class F>
HWY_INLINE void map(const float* a, const float* b, const float* c, float* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(f(hn::LoadU(D(), a + i), hn::LoadU(D(), b + i), hn::LoadU(D(), c + i)), D(), y + i);
  }
  if (i < n) {
    const int64_t rest = n - i;
    store_some(f(load_some(a + i, rest), load_some(b + i, rest), load_some(c + i, rest)), y + i, rest);
  }
}

/// Calls body(i, load, store) for every vector of [0,n): load(p + i) and store(v, p + i) touch the lanes that exist,
/// and the others are loaded as zeros.
template <class Body>
HWY_INLINE void for_vectors(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    body(
        i, [](const float* p) HWY_ATTR { return hn::LoadU(D(), p); },
        [](V v, float* p) HWY_ATTR { hn::StoreU(v, D(), p); });
  }
  const int64_t rest = n - i;
  if (rest > 0) {
    body(
        i, [&](const float* p) HWY_ATTR { return load_some(p, rest); },
        [&](V v, float* p) HWY_ATTR { store_some(v, p, rest); });
  }
}

/// sum_i x[i]^2 with four independent chains.
HWY_INLINE float sum_of_squares(const float* x, int64_t n) {
  V sum[4] = {hn::Zero(D()), hn::Zero(D()), hn::Zero(D()), hn::Zero(D())};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int64_t j = 0; j < 4; ++j) {
      const V v = hn::LoadU(D(), x + i + j * kLanes);
      sum[j] = hn::MulAdd(v, v, sum[j]);
    }
  }
  for (; i < n; i += kLanes) {
    const V v = i + kLanes <= n ? hn::LoadU(D(), x + i) : load_some(x + i, n - i);
    sum[0] = hn::MulAdd(v, v, sum[0]);
  }
  return sum_lanes(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
}

/// 1/(1 + exp(-x)), through exp(-|x|) so that nothing overflows and small results keep their relative precision.
HWY_INLINE V sigmoid(V x) {
  const V one = hn::Set(D(), 1.0f);
  const V e = hn::Exp(D(), hn::Neg(hn::Abs(x)));
  const V numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(D())), e, one);
  return hn::Div(numerator, hn::Add(one, e));
}

HWY_INLINE V silu(V x) {
  return hn::Mul(x, sigmoid(x));
}

/// A gate and its slope. Both tails of the sigmoid keep their relative precision, as above.
struct GateSlope {
  V value, slope;
};
HWY_INLINE GateSlope sigmoid_slope(V x) {
  const V s = sigmoid(x);
  return {s, hn::Mul(s, sigmoid(hn::Neg(x)))};
}
HWY_INLINE GateSlope silu_slope(V x) {
  const GateSlope s = sigmoid_slope(x);
  return {hn::Mul(x, s.value), hn::MulAdd(x, s.slope, s.value)};
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif

// f64 vectors over f32 logits. Included once per SIMD target, as ops/simd-inl.h is.
#if defined(NIBBLE_OPS_F64_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_F64_INL_H_
#undef NIBBLE_OPS_F64_INL_H_
#else
#define NIBBLE_OPS_F64_INL_H_
#endif

#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

#if HWY_HAVE_FLOAT64 && HWY_TARGET != HWY_SCALAR
using D64 = hn::CappedTag<double, 8>;
#else
using D64 = hn::CappedTag<double, 1>;
#endif
using V64 = hn::Vec<D64>;
constexpr int64_t kLanes64 = hn::MaxLanes(D64());

/// sum_i f(i) over [0,n): whole vectors from `wide`, the rest one by one from `single`.
template <class Wide, class Single>
HWY_INLINE double sum_over(int64_t n, const Wide& wide, const Single& single) {
  V64 sum = hn::Zero(D64());
  int64_t i = 0;
  for (; i + kLanes64 <= n; i += kLanes64) sum = hn::Add(sum, wide(i));
  double total = hn::GetLane(hn::SumOfLanes(D64(), sum));
  for (; i < n; ++i) total += single(i);
  return total;
}

HWY_INLINE V64 load_f64(const float* x) {
  return hn::PromoteTo(D64(), hn::LoadU(hn::Rebind<float, D64>(), x));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif

#include <algorithm>
#include <cmath>

#include "ops/backend.h"
#include "ops/loss/kl.h"
#include "ops/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/loss/kl_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/loss/f64-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// sum_i exp(x_i - shift)
double sum_of_exp(const float* x, int64_t n, double shift) {
  const V64 s = hn::Set(D64(), shift);
  return sum_over(
      n, [&](int64_t i) HWY_ATTR { return hn::Exp(D64(), hn::Sub(load_f64(x + i), s)); },
      [&](int64_t i) { return std::exp(static_cast<double>(x[i]) - shift); });
}

/// sum_i exp(p_i - shift) * (p_i - q_i)
double sum_of_weighted_difference(const float* p, const float* q, int64_t n, double shift) {
  const V64 s = hn::Set(D64(), shift);
  return sum_over(
      n,
      [&](int64_t i) HWY_ATTR {
        const V64 a = load_f64(p + i);
        return hn::Mul(hn::Exp(D64(), hn::Sub(a, s)), hn::Sub(a, load_f64(q + i)));
      },
      [&](int64_t i) {
        const double a = p[i];
        return std::exp(a - shift) * (a - static_cast<double>(q[i]));
      });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(sum_of_exp);
HWY_EXPORT(sum_of_weighted_difference);

/// log sum_i exp(x_i)
double log_sum_exp(const float* x, int64_t n) {
  const double largest = *std::max_element(x, x + n);
  return largest + std::log(HWY_DYNAMIC_DISPATCH(sum_of_exp)(x, n, largest));
}

constexpr int64_t kStepsPerLogit = 4;

}  // namespace

void softmax_compare(Context& cx, const Tensor& logits_p, const Tensor& logits_q, std::span<double> kl,
                     std::span<uint8_t> top1_equal) {
  require_cpu("softmax_compare", logits_p);
  NIBBLE_CHECK(logits_p.rank() == 2 && logits_q.shape() == logits_p.shape());
  const int64_t rows = logits_p.dim(0), n = logits_p.dim(1);
  NIBBLE_CHECK(n > 0 && std::ssize(kl) == rows && std::ssize(top1_equal) == rows);
  const float *in_p = logits_p.f32(), *in_q = logits_q.f32();
  cx.pool.parallel_for(rows, row_grain(3 * n * kStepsPerLogit), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *p = in_p + t * n, *q = in_q + t * n;
      const double lse_p = log_sum_exp(p, n), lse_q = log_sum_exp(q, n);
      const double mean_difference = HWY_DYNAMIC_DISPATCH(sum_of_weighted_difference)(p, q, n, lse_p);
      const auto row = static_cast<size_t>(t);
      kl[row] = std::max(0.0, mean_difference - (lse_p - lse_q));
      top1_equal[row] = std::max_element(p, p + n) - p == std::max_element(q, q + n) - q;
    }
  });
}

void label_log_prob(Context& cx, const Tensor& logits, std::span<const int32_t> labels, std::span<double> log_prob) {
  require_cpu("label_log_prob", logits);
  NIBBLE_CHECK(logits.rank() == 2);
  const int64_t rows = logits.dim(0), n = logits.dim(1);
  NIBBLE_CHECK(n > 0 && std::ssize(labels) == rows && std::ssize(log_prob) == rows);
  const float* in = logits.f32();
  cx.pool.parallel_for(rows, row_grain(n * kStepsPerLogit), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto row = static_cast<size_t>(t);
      const int64_t label = labels[row];
      NIBBLE_CHECK(0 <= label && label < n);
      log_prob[row] = static_cast<double>(in[t * n + label]) - log_sum_exp(in + t * n, n);
    }
  });
}

}  // namespace nibble::ops
#endif

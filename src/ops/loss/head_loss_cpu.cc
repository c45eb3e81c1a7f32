#include "ops/loss/head_loss_cpu.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/loss/head_loss_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/loss/f64-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// sum_i exp(scale * x_i - shift)
double sum_of_scaled_exp(const float* x, int64_t n, double scale, double shift) {
  const V64 a = hn::Set(D64(), scale), b = hn::Set(D64(), shift);
  return sum_over(
      n, [&](int64_t i) HWY_ATTR { return hn::Exp(D64(), hn::Sub(hn::Mul(load_f64(x + i), a), b)); },
      [&](int64_t i) { return std::exp(static_cast<double>(x[i]) * scale - shift); });
}

TeacherMeans teacher_means(const float* teacher, const float* z, int64_t n, double scale, double shift) {
  const V64 a = hn::Set(D64(), scale), b = hn::Set(D64(), shift);
  V64 logit = hn::Zero(D64()), difference = hn::Zero(D64());
  int64_t i = 0;
  for (; i + kLanes64 <= n; i += kLanes64) {
    const V64 t = load_f64(teacher + i), scaled = hn::Mul(t, a);
    const V64 p = hn::Exp(D64(), hn::Sub(scaled, b));
    logit = hn::MulAdd(p, scaled, logit);
    difference = hn::MulAdd(p, hn::Mul(hn::Sub(t, load_f64(z + i)), a), difference);
  }
  TeacherMeans means{hn::GetLane(hn::SumOfLanes(D64(), logit)), hn::GetLane(hn::SumOfLanes(D64(), difference))};
  for (; i < n; ++i) {
    const double t = teacher[i], p = std::exp(t * scale - shift);
    means.logit += p * t * scale;
    means.difference += p * (t - static_cast<double>(z[i])) * scale;
  }
  return means;
}

/// In place of z; without a teacher kl is 0.
void logit_gradient(float* z, const float* teacher, int64_t n, const LogitGradient& g) {
  const hn::Rebind<float, D64> d32;
  const V64 ce = hn::Set(D64(), g.ce), lse = hn::Set(D64(), g.lse), kl = hn::Set(D64(), g.kl);
  const V64 scale = hn::Set(D64(), g.inverse_tau), lse_tau = hn::Set(D64(), g.lse_tau);
  const V64 lse_teacher = hn::Set(D64(), g.lse_teacher);
  int64_t i = 0;
  for (; i + kLanes64 <= n; i += kLanes64) {
    const V64 x = load_f64(z + i);
    V64 d = hn::Zero(D64());
    if (g.ce != 0) d = hn::Mul(ce, hn::Exp(D64(), hn::Sub(x, lse)));
    if (g.kl != 0) {
      const V64 p = hn::Exp(D64(), hn::Sub(hn::Mul(x, scale), lse_tau));
      const V64 wanted = hn::Exp(D64(), hn::Sub(hn::Mul(load_f64(teacher + i), scale), lse_teacher));
      d = hn::MulAdd(kl, hn::Sub(p, wanted), d);
    }
    hn::StoreU(hn::DemoteTo(d32, d), d32, z + i);
  }
  for (; i < n; ++i) {
    const double x = z[i];
    double d = 0;
    if (g.ce != 0) d = g.ce * std::exp(x - g.lse);
    if (g.kl != 0) {
      d += g.kl * (std::exp(x * g.inverse_tau - g.lse_tau) - std::exp(teacher[i] * g.inverse_tau - g.lse_teacher));
    }
    z[i] = static_cast<float>(d);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {
namespace {

HWY_EXPORT(sum_of_scaled_exp);
HWY_EXPORT(teacher_means);
HWY_EXPORT(logit_gradient);

/// log sum_i exp(scale * x_i), where x_largest is the largest.
double log_sum_exp(const float* x, int64_t n, double scale, double largest) {
  return scale * largest + std::log(HWY_DYNAMIC_DISPATCH(sum_of_scaled_exp)(x, n, scale, scale * largest));
}

}  // namespace

RowLoss row_loss_cpu(const HeadLossRow& row, double tau, float* z, const float* teacher, int64_t n, bool gradient) {
  RowLoss result;
  const bool has_label = row.label >= 0, has_kl = row.kl_weight != 0;
  const int64_t top = std::max_element(z, z + n) - z;
  LogitGradient g;
  g.ce = row.ce_weight;
  g.kl = row.kl_weight * tau;
  g.inverse_tau = 1 / tau;
  double label_gradient = 0;
  if (has_label) {
    g.lse = log_sum_exp(z, n, 1, z[top]);
    const double log_p = z[row.label] - g.lse;
    result.ce = -log_p;
    result.correct = top == row.label;
    label_gradient = row.ce_weight * std::expm1(log_p);  // p - 1 keeps its digits as p nears 1
  }
  if (has_kl) {
    const int64_t teacher_top = std::max_element(teacher, teacher + n) - teacher;
    g.lse_tau = log_sum_exp(z, n, g.inverse_tau, z[top]);
    g.lse_teacher = log_sum_exp(teacher, n, g.inverse_tau, teacher[teacher_top]);
    const TeacherMeans means = HWY_DYNAMIC_DISPATCH(teacher_means)(teacher, z, n, g.inverse_tau, g.lse_teacher);
    result.kl = std::max(0.0, means.difference - (g.lse_teacher - g.lse_tau));
    result.teacher_entropy = g.lse_teacher - means.logit;
    result.agree = top == teacher_top;
    if (has_label) {
      label_gradient += g.kl * (std::exp(z[row.label] * g.inverse_tau - g.lse_tau) -
                                std::exp(teacher[row.label] * g.inverse_tau - g.lse_teacher));
    }
  }
  result.loss = row.ce_weight * result.ce + row.kl_weight * tau * tau * result.kl;
  if (gradient) {
    HWY_DYNAMIC_DISPATCH(logit_gradient)(z, teacher, n, g);
    if (has_label) z[row.label] = static_cast<float>(label_gradient);
  }
  return result;
}

}  // namespace nibble::ops
#endif

// One row of head_loss, between its chunks (head_loss.cc) and the SIMD targets (head_loss_cpu.cc).
#pragma once

#include "ops/loss/head_loss.h"

namespace nibble::ops {

/// What a row adds to the sums of HeadLoss; zeros where it has no label or no teacher.
struct RowLoss {
  double loss = 0, ce = 0, kl = 0, teacher_entropy = 0;
  bool correct = false, agree = false;
};

/// Sums over the teacher's distribution p' of z' / tau and of (z' - z) / tau.
struct TeacherMeans {
  double logit, difference;
};

/// dz = ce * exp(z - lse) + kl * (exp(z / tau - lse_tau) - exp(z' / tau - lse_teacher)), and -ce at the label
struct LogitGradient {
  double ce = 0, lse = 0, kl = 0, inverse_tau = 1, lse_tau = 0, lse_teacher = 0;
};

/// z [n] are the row's logits, `teacher` those of the teacher, or null. With `gradient`, z becomes dz.
RowLoss row_loss_cpu(const HeadLossRow& row, double tau, float* z, const float* teacher, int64_t n, bool gradient);

}  // namespace nibble::ops

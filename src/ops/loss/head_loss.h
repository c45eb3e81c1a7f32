// head_loss: the output projection together with what is trained on its logits, which exist for a few rows at a time.
#pragma once

#include <span>

#include "ops/linear/linear.h"

namespace nibble::ops {

/// A row of `hidden` that has an objective. The weights are final: whatever divides by counts or mixes objectives is in
/// them already.
struct HeadLossRow {
  int32_t row = 0;
  int32_t label = -1;  // -1: none, and ce_weight is 0
  float ce_weight = 0;
  float kl_weight = 0;  // not 0 only with a teacher
};

/// The model that KL pulls towards: its hidden states of the same tokens and its own head.
struct HeadTeacher {
  Tensor hidden;                 // [T,H'] f32
  const Linear* head = nullptr;  // [V,H']; null: no teacher
};

struct HeadLossOptions {
  float tau = 1;        // temperature of both distributions in KL, > 0
  int64_t chunk = 512;  // rows whose logits exist at a time: chunk * V floats, twice that with a teacher
};

/// Sums over rows, in nats. All but `loss` are unweighted.
struct HeadLoss {
  double loss = 0;  // what is minimised
  double ce = 0;    // over the ce_rows rows with a label, whatever their weight
  double kl = 0;    // of distributions at tau, over the kl_rows rows with kl_weight != 0
  double teacher_entropy = 0;
  int64_t ce_rows = 0, correct = 0;  // the largest logit, the first among equals, is the label's
  int64_t kl_rows = 0, agree = 0;    // the largest logits of both models stand at the same index
};

/// head_loss: with z = linear(hidden[row], head) and z' = linear(teacher.hidden[row], teacher.head) for each entry of
/// rows:
///   ce = log sum_i exp(z_i) - z_label;   p = softmax(z / tau), p' = softmax(z' / tau), kl = sum_i p'_i log(p'_i / p_i)
///   loss = sum over the rows of ce_weight * ce + kl_weight * tau^2 * kl
/// shapes   hidden [T,H] f32   head [V,H]   rows in ascending order, each at most once; label < V
/// numeric  logits are those of linear, in any cx.numeric; exponentials and sums in f64. The result depends neither on
///          the number of threads nor on the chunk.
/// effects  scratch from cx.arena
HeadLoss head_loss(Context& cx, std::span<const HeadLossRow> rows, const Tensor& hidden, const Linear& head,
                   const HeadTeacher& teacher, const HeadLossOptions& options);

/// head_loss_vjp: the same sums and the gradient of loss, in one pass over the logits:
///   dz = ce_weight * (softmax(z) - onehot(label)) + kl_weight * tau * (p - p')
///   dhidden[row] = dz w';   dhead += sum over the rows of dz^T hidden[row], as linear_vjp says.  Numeric::exact only
/// shapes   dhidden [T,H] f32   dhead [V,H] f32
/// numeric  dz in f64, rounded once; the bits of the gradients depend on the chunk but not on the number of threads
/// effects  overwrites dhidden, with exact zeros in rows without an entry or without weight; adds to dhead; either may
///          be empty: not wanted; scratch from cx.arena
HeadLoss head_loss_vjp(Context& cx, std::span<const HeadLossRow> rows, const Tensor& hidden, const Linear& head,
                       const HeadTeacher& teacher, const HeadLossOptions& options, Tensor& dhidden, Tensor& dhead);

}  // namespace nibble::ops

#include "train/step.h"

#include "model/backward.h"

namespace nibble::train {

void Losses::add(const Losses& other) {
  loss += other.loss;
  ce += other.ce;
  kl += other.kl;
  teacher_entropy += other.teacher_entropy;
  ce_rows += other.ce_rows;
  correct += other.correct;
  kl_rows += other.kl_rows;
  agree += other.agree;
  tokens += other.tokens;
}

Result<Losses> LossPass::gradients(Context& cx, const Batch& batch, const Totals& totals) {
  return run(cx, batch, totals, true);
}

Result<Losses> LossPass::evaluate(Context& cx, const Batch& batch, const Totals& totals) {
  return run(cx, batch, totals, false);
}

// Final weights of the rows that have one.
void LossPass::choose_rows(const Batch& batch, const Totals& totals) {
  rows_.clear();
  for (size_t t = 0; t < batch.labels.size(); ++t) {
    if (batch.labels[t] < 0) continue;
    ops::HeadLossRow row{static_cast<int32_t>(t), batch.labels[t], 0, 0};
    if (totals.ce_weight > 0) row.ce_weight = static_cast<float>(batch.ce[t] / totals.ce_weight);
    if (totals.kl_weight > 0) row.kl_weight = static_cast<float>(options_.kl_factor * batch.kl[t] / totals.kl_weight);
    if (row.ce_weight > 0 || row.kl_weight > 0) rows_.push_back(row);
  }
}

Result<Losses> LossPass::run(Context& cx, const Batch& batch, const Totals& totals, bool with_gradients) {
  const Arena::Scope scope(cx.arena);
  const model::Weights& weights = student_.weights();
  const int64_t T = batch.tokens(), H = weights.config.hidden;
  choose_rows(batch, totals);

  ops::HeadTeacher teacher;
  if (teacher_ != nullptr && batch.kl_weight > 0) {
    NIBBLE_TRY(rows, teacher_->hidden(cx, batch));
    teacher = {rows, &teacher_->head()};
  }
  const std::span<const model::Segment> segments = sequences_.of(batch);
  Tensor hidden = cx.arena.f32({T, H});
  tape_.keep_traces = options_.keep_traces;
  NIBBLE_RETURN_IF_ERROR(
      model::forward(cx, weights, batch.ids, segments, hidden, nullptr, with_gradients ? &tape_ : nullptr));

  const ops::HeadLossOptions head{options_.temperature, options_.head_chunk};
  ops::HeadLoss sums;
  if (with_gradients) {
    Tensor dhidden = cx.arena.f32({T, H});
    sums = ops::head_loss_vjp(cx, rows_, hidden, weights.lm_head, teacher, head, dhidden, student_.head_gradient());
    NIBBLE_RETURN_IF_ERROR(model::backward(cx, weights, batch.ids, segments, tape_, dhidden, student_.gradients()));
  } else {
    sums = ops::head_loss(cx, rows_, hidden, weights.lm_head, teacher, head);
  }
  return Losses{sums, T};
}

}  // namespace nibble::train

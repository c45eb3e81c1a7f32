// One micro-batch: forward, loss, backward. The optimizer's step is the caller's, after as many of these as it wants.
//
//   loss = (sum_ce w (lse - z_y)) / W_ce + lambda tau^2 (sum_kl w KL(teacher || student at temperature tau)) / W_kl
// W_ce and W_kl are the sums of row weights over the whole optimizer step, so cutting it into micro-batches in another
// way gives the same gradient.
#pragma once

#include <algorithm>

#include "ops/loss/head_loss.h"
#include "train/student.h"
#include "train/teacher.h"

namespace nibble::train {

struct LossOptions {
  float kl_factor = 1;  // lambda
  float temperature = 1;
  int64_t head_chunk = 512;  // rows whose logits exist at a time
  bool keep_traces = false;  // false: blocks are computed again in the backward pass
};

/// What a step divides by.
struct Totals {
  double ce_weight = 0, kl_weight = 0;
  void add(const Batch& batch) {
    ce_weight += batch.ce_weight;
    kl_weight += batch.kl_weight;
  }
};

/// The head's sums over the rows of one or more batches; `loss` is what the gradients belong to.
struct Losses : ops::HeadLoss {
  int64_t tokens = 0;

  double mean_ce() const { return ce_rows > 0 ? ce / static_cast<double>(ce_rows) : 0; }
  double mean_kl() const { return kl_rows > 0 ? kl / static_cast<double>(kl_rows) : 0; }
  double top1() const { return kl_rows > 0 ? static_cast<double>(agree) / static_cast<double>(kl_rows) : 0; }
  int64_t rows() const { return std::max(ce_rows, kl_rows); }
  void add(const Losses& other);
};

/// Not thread-safe. Everything it takes from cx.arena it gives back.
class LossPass {
 public:
  /// `teacher` may be null where no row has a KL weight.
  LossPass(Student& student, Teacher* teacher, const LossOptions& options)
      : student_(student), teacher_(teacher), options_(options), sequences_(student.weights().config) {}

  /// Adds the batch's gradients to the student's.
  Result<Losses> gradients(Context& cx, const Batch& batch, const Totals& totals);
  /// The losses alone.
  Result<Losses> evaluate(Context& cx, const Batch& batch, const Totals& totals);

 private:
  void choose_rows(const Batch& batch, const Totals& totals);
  Result<Losses> run(Context& cx, const Batch& batch, const Totals& totals, bool with_gradients);

  Student& student_;
  Teacher* teacher_;
  LossOptions options_;
  Sequences sequences_;
  model::Tape tape_;
  std::vector<ops::HeadLossRow> rows_;
};

}  // namespace nibble::train

// The teacher of a distillation: the hidden rows it has where the student is scored.
#pragma once

#include "base/result.h"
#include "model/weights.h"
#include "train/batches.h"
#include "train/sequences.h"

namespace nibble::train {

/// Not thread-safe.
class Teacher {
 public:
  virtual ~Teacher() = default;

  /// [T,H'] f32, the post-norm rows of the batch, from cx.arena; rows without a KL weight may hold anything.
  virtual Result<Tensor> hidden(Context& cx, const Batch& batch) = 0;
  /// The head that turns them into logits.
  virtual const ops::Linear& head() const = 0;
};

/// A model in memory that reads every batch itself.
class ResidentTeacher : public Teacher {
 public:
  /// `weights` must outlive it.
  explicit ResidentTeacher(const model::Weights& weights) : weights_(weights), sequences_(weights.config) {}

  Result<Tensor> hidden(Context& cx, const Batch& batch) override;
  const ops::Linear& head() const override { return weights_.lm_head; }

 private:
  const model::Weights& weights_;
  Sequences sequences_;
};

}  // namespace nibble::train

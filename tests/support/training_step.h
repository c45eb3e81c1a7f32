// One optimizer step as the training loop does it, for tests that watch the model instead of the loop.
#pragma once

#include <gtest/gtest.h>

#include "ops/optim/squared_norm.h"
#include "train/schedule.h"
#include "train/step.h"

namespace nibble::test {

/// Step `step`, from 0, of AdamW without decay, on one batch, the norm of its gradient at most 1.
inline void training_step(Context& cx, train::Student& student, train::LossPass& pass, const train::Batch& batch,
                          const train::Schedule& schedule, int64_t step) {
  train::Totals totals;
  totals.add(batch);
  student.clear_gradients();
  ASSERT_TRUE(pass.gradients(cx, batch, totals).ok());
  ops::AdamW adamw;
  adamw.lr = schedule.at(step);
  adamw.step = step + 1;
  adamw.clip = ops::clip_factor(student.gradient_norm(cx), 1);
  student.update(cx, adamw);
}

}  // namespace nibble::test

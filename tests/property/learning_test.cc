// A small random model learns to reverse a sequence until the path that serves (prefill, then one token at a time)
// answers every sequence there is. Nothing but right gradients, a right optimizer and a right state gets there.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/forward.h"
#include "ops/optim/squared_norm.h"
#include "tests/support/models.h"
#include "train/schedule.h"
#include "train/step.h"

namespace nibble::test {
namespace {

using train::Sample;

constexpr int32_t kDigits = 8, kTurn = 10, kEnd = 11;  // ids 0..7, then what ends the question and the answer

// a b c | c b a end, with a loss on what comes behind the bar.
Sample reversal(std::vector<int32_t> digits) {
  Sample sample;
  sample.ids = digits;
  sample.ids.push_back(kTurn);
  sample.weight.assign(digits.size(), 0.0f);
  sample.ids.insert(sample.ids.end(), digits.rbegin(), digits.rend());
  sample.ids.push_back(kEnd);
  sample.weight.resize(sample.ids.size(), 1.0f);
  sample.weight.back() = 0;
  return sample;
}

// All sequences of three digits.
std::vector<Sample> all_reversals() {
  std::vector<Sample> samples;
  for (int32_t i = 0; i < kDigits * kDigits * kDigits; ++i) {
    samples.push_back(reversal({i / (kDigits * kDigits), i / kDigits % kDigits, i % kDigits}));
  }
  return samples;
}

class Learning : public testing::Test {
 protected:
  // How many of them the model answers, greedily.
  int answered(const model::Weights& weights, const std::vector<Sample>& samples) {
    int right = 0;
    for (const Sample& sample : samples) {
      const std::span<const int32_t> ids = sample.ids;
      const size_t asked = (ids.size() - 2) / 2 + 1;
      model::State state(weights.config, static_cast<int64_t>(ids.size()), DType::f32);
      OwnedTensor hidden(DType::f32, {static_cast<int64_t>(asked), weights.config.hidden});
      OwnedTensor row(DType::f32, {1, weights.config.hidden}), logits(DType::f32, {1, weights.config.vocab});
      EXPECT_TRUE(model::forward(cx_, weights, ids.first(asked), state, hidden.view).ok());
      Tensor last = hidden.view.rows(static_cast<int64_t>(asked) - 1, static_cast<int64_t>(asked));
      size_t at = asked;
      for (; at < ids.size(); ++at) {
        model::head(cx_, weights, last, logits.view);
        const std::span<const float> scores = logits.view.f32_span();
        const auto best = static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
        if (best != ids[at]) break;
        EXPECT_TRUE(model::forward(cx_, weights, {&best, 1}, state, row.view).ok());
        last = row.view;
      }
      right += at == ids.size();
    }
    return right;
  }

  ThreadPool pool_{2};
  Context cx_{pool_};
};

TEST_F(Learning, ARandomModelLearnsToReverseASequence) {
  auto created = train::Student::create(cx_, kGolden / "micro", load(kGolden / "micro"), {});
  ASSERT_TRUE(created.ok());
  train::Student& student = **created;
  train::LossPass pass(student, nullptr, {});
  const std::vector<Sample> samples = all_reversals();
  ASSERT_LT(answered(student.weights(), samples), 5);
  auto batches = *train::Batches::create(samples, {.conversations = 256, .objective = train::Objective::ce});
  train::Cursor cursor;
  const train::Schedule schedule{.lr = 1e-2f, .steps = 120, .warmup = 5};
  int64_t step = 0;
  int right = 0;
  while (right < static_cast<int>(samples.size()) && step < schedule.steps) {
    const train::Batch batch = batches.next(cursor);
    train::Totals totals;
    totals.add(batch);
    student.clear_gradients();
    ASSERT_TRUE(pass.gradients(cx_, batch, totals).ok());
    ops::AdamW adamw;
    adamw.lr = schedule.at(step);
    adamw.step = ++step;
    adamw.clip = ops::clip_factor(student.gradient_norm(cx_), 1);
    student.update(cx_, adamw);
    if (step % 20 == 0) right = answered(student.weights(), samples);
  }
  RecordProperty("steps", std::to_string(step));
  EXPECT_EQ(right, static_cast<int>(samples.size()));
}

}  // namespace
}  // namespace nibble::test

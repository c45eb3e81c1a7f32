// Models learn: nothing but right gradients, a right optimizer and a right state gets there. A small random one learns
// to reverse a sequence until the path that serves (prefill, then one token at a time) answers every sequence there is.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "model/forward.h"
#include "tests/support/models.h"
#include "tests/support/training_step.h"
#include "train/trainer.h"

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
    training_step(cx_, student, pass, batches.next(cursor), schedule, step);
    ++step;
    if (step % 20 == 0) right = answered(student.weights(), samples);
  }
  RecordProperty("steps", std::to_string(step));
  EXPECT_EQ(right, static_cast<int>(samples.size()));
}

// Another voice than its own, learned by heart: 32 conversations, cross-entropy on what the assistant says.
TEST_F(Learning, SlowTinyBaseLearnsThirtyTwoConversationsByHeart) {
  const Path base = kSource / "models/tiny-base";
  const auto tokenizer = std::move(text::Tokenizer::load(base)).value();
  const auto chat_template = std::move(text::ChatTemplate::load(base)).value();
  auto data = train::load_dataset(kGolden / "tiny-voice/calibration_texts.jsonl", tokenizer, chat_template, {});
  ASSERT_TRUE(data.ok()) << data.status().text();
  data->samples.resize(32);

  auto student = std::move(train::Student::create(cx_, base, load(base), {})).value();
  train::LossPass pass(*student, nullptr, {});
  const train::BatchOptions of{.conversations = 8, .objective = train::Objective::ce};
  const auto loss = [&] { return train::evaluate(cx_, pass, data->samples, of)->mean_ce(); };
  EXPECT_GT(loss(), .5);
  auto batches = *train::Batches::create(data->samples, of);
  const train::Schedule schedule{.lr = 3e-4f, .steps = 80, .warmup = 5};
  train::Cursor cursor;
  for (int64_t step = 0; step < schedule.steps; ++step) {
    training_step(cx_, *student, pass, batches.next(cursor), schedule, step);
  }
  const double learned = loss();
  RecordProperty("loss", fmt::format("{:.4f}", learned));
  EXPECT_LT(learned, .05);
}

}  // namespace
}  // namespace nibble::test

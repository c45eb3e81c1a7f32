// The forward for serving on a CPU: the bits of the plain forward, whatever stands beside a sequence.
#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "model/batch_runner.h"
#include "model/forward.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

class BatchForward : public testing::TestWithParam<std::tuple<const char*, bool, Numeric>> {
 protected:
  BatchForward() : model_(load(kSource / std::get<0>(GetParam()))) {
    cx_.numeric = std::get<2>(GetParam());
    if (std::get<1>(GetParam())) quantize_in_place(cx_, model_.weights, Scales::tied);
  }
  std::vector<int32_t> prompt(uint64_t seed, int64_t n) const {
    Rng rng(seed);
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint32_t>(model_.weights.config.vocab)));
    return ids;
  }

  // Logits of the last prompt token and of `steps` greedy tokens, with the ids chosen.
  struct Speech {
    std::vector<float> logits;
    std::vector<int32_t> ids;
  };
  Speech plain(std::span<const int32_t> prompt, int steps) {
    const model::Config& c = model_.weights.config;
    model::State state(c, 400, cx_.numeric == Numeric::exact ? DType::f32 : DType::bf16);
    OwnedTensor logits(DType::f32, {1, c.vocab}), hidden(DType::f32, {1, c.hidden});
    EXPECT_TRUE(model::read_prompt(cx_, model_.weights, prompt, state, logits.view).ok());
    Speech speech;
    for (int i = 0;; ++i) {
      const auto row = logits.view.f32_span();
      speech.logits.insert(speech.logits.end(), row.begin(), row.end());
      speech.ids.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
      if (i == steps) return speech;
      EXPECT_TRUE(model::forward(cx_, model_.weights, {&speech.ids.back(), 1}, state, hidden.view).ok());
      model::head(cx_, model_.weights, hidden.view, logits.view);
    }
  }

  ThreadPool pool_{2};
  Context cx_{pool_};
  checkpoint::LoadedModel model_;
};

TEST_P(BatchForward, GivesTheBitsOfForwardToEverySequence) {
  constexpr int kSteps = 3;
  const std::vector<std::vector<int32_t>> prompts = {prompt(1, 70), prompt(2, 1), prompt(3, 300)};
  const int64_t slots[] = {2, 0, 3};  // of 4, the batch of three pads to none
  auto runner = std::move(model::BatchRunner::create(cx_, model_.weights, {.slots = 4, .capacity = 400})).value();
  std::vector<Speech> expected, got(prompts.size());
  std::vector<model::Speaker> speakers;
  const auto V = static_cast<size_t>(model_.weights.config.vocab);
  // What a slot held before must not matter.
  ASSERT_TRUE(runner->read(0, 0, prompt(9, 33)).ok());
  for (size_t i = 0; i < prompts.size(); ++i) {
    expected.push_back(plain(prompts[i], kSteps));
    ASSERT_TRUE(runner->read(slots[i], 0, prompts[i]).ok());
    int32_t first = -1;
    ASSERT_TRUE(runner->chosen({&first, 1}).ok());
    const float* row = runner->logits().f32();
    got[i].logits.assign(row, row + V);
    got[i].ids.push_back(first);
    speakers.push_back({slots[i], static_cast<int64_t>(prompts[i].size()), first});
  }
  ASSERT_TRUE(runner->set(speakers).ok());
  for (int step = 0; step < kSteps; ++step) {
    ASSERT_TRUE(runner->step().ok());
    std::vector<int32_t> ids(prompts.size());
    ASSERT_TRUE(runner->chosen(ids).ok());
    for (size_t i = 0; i < prompts.size(); ++i) {
      const float* row = runner->logits().f32() + i * V;
      got[i].logits.insert(got[i].logits.end(), row, row + V);
      got[i].ids.push_back(ids[i]);
    }
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(got[i].ids, expected[i].ids);
    ASSERT_EQ(got[i].logits.size(), expected[i].logits.size());
    EXPECT_EQ(std::memcmp(got[i].logits.data(), expected[i].logits.data(), got[i].logits.size() * sizeof(float)), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, BatchForward,
                         testing::Combine(testing::Values("tests/golden/micro", "tests/golden/micro_tied",
                                                          "models/tiny-voice"),
                                          testing::Bool(), testing::Values(Numeric::exact, Numeric::bf16_act)));

}  // namespace
}  // namespace nibble::test

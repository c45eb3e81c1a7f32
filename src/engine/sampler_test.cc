#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace nibble::engine {
namespace {

// How often each id is drawn in n samples from the same logits.
std::map<int32_t, int> draw(Sampling sampling, const std::vector<float>& logits, int n,
                            const std::vector<int32_t>& masked = {}) {
  Sampler sampler(sampling, {}, 42);
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) {
    std::vector<float> copy = logits;
    ++counts[sampler.sample(copy, masked)];
  }
  return counts;
}

const std::vector<float> kLogits = {std::log(0.5f), std::log(0.25f), std::log(0.15f), std::log(0.1f)};

TEST(Sampler, TemperatureZeroTakesTheLowestOfEqualMaxima) {
  std::vector<float> logits = {1, 3, 2, 3};
  Sampler sampler({.temperature = 0}, {}, 1);
  EXPECT_EQ(sampler.sample(logits, {}), 1);
}

TEST(Sampler, PlainSamplingFollowsTheDistribution) {
  auto counts = draw({}, kLogits, 20000);
  for (int32_t id = 0; id < 4; ++id) EXPECT_NEAR(counts[id] / 20000.0, std::exp(kLogits[size_t(id)]), 0.012) << id;
}

TEST(Sampler, TemperatureSharpens) {  // p^2 normalised: .25 .0625 .0225 .01 over .345
  auto counts = draw({.temperature = 0.5f}, kLogits, 20000);
  EXPECT_NEAR(counts[0] / 20000.0, 0.25 / 0.345, 0.012);
}

TEST(Sampler, TopKTopPMinPCutTheTail) {
  EXPECT_EQ(draw({.top_k = 2}, kLogits, 2000).size(), 2u);
  EXPECT_EQ(draw({.top_p = 0.5f}, kLogits, 2000).size(), 1u);
  EXPECT_EQ(draw({.top_p = 0.76f}, kLogits, 2000).size(), 3u);
  EXPECT_EQ(draw({.min_p = 0.25f}, kLogits, 2000).size(), 3u);  // 0.15 >= 0.25 * 0.5 > 0.1
  EXPECT_EQ(draw({.top_k = 100}, kLogits, 5000).size(), 4u);
}

TEST(Sampler, MaskedIdsNeverAppear) {
  const auto counts = draw({}, kLogits, 3000, {0, 2, 99, -1});
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_FALSE(counts.contains(0));
  std::vector<float> logits = {9, 1};
  Sampler greedy({.temperature = 0}, {}, 1);
  const std::vector<int32_t> masked = {0};
  EXPECT_EQ(greedy.sample(logits, masked), 1);
}

TEST(Sampler, PresenceAndFrequencyLookAtTheOutput) {
  Sampler sampler({.temperature = 0, .presence_penalty = 0.5f, .frequency_penalty = 0.3f},
                  std::vector<int32_t>{0, 0, 0}, 1);
  std::vector<int32_t> ids;
  for (int i = 0; i < 4; ++i) {
    std::vector<float> logits = {1.0f, 0.5f, 0.45f};
    ids.push_back(sampler.sample(logits, {}));
  }
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1, 2, 0}));  // 1.0; .2 .5 .45; .2 -.3 .45; .2 -.3 -.35
}

TEST(Sampler, RepetitionLooksAtPromptAndOutput) {
  Sampler sampler({.temperature = 0, .repetition_penalty = 2.0f}, std::vector<int32_t>{0}, 1);
  std::vector<float> positive = {1.0f, 0.6f};
  EXPECT_EQ(sampler.sample(positive, {}), 1);  // 0.5 against 0.6
  std::vector<float> negative = {-1.0f, -1.5f};
  EXPECT_EQ(sampler.sample(negative, {}), 0);  // both seen now: -2 against -3
}

TEST(Sampler, OneSeedOneText) {
  const auto text = [](std::optional<uint64_t> seed, uint64_t fallback) {
    Sampler sampler({.seed = seed}, {}, fallback);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) {
      std::vector<float> logits = kLogits;
      ids.push_back(sampler.sample(logits, {}));
    }
    return ids;
  };
  EXPECT_EQ(text(5, 1), text(5, 2));
  EXPECT_NE(text(5, 1), text(6, 1));
  EXPECT_NE(text({}, 1), text({}, 2));
}

}  // namespace
}  // namespace nibble::engine

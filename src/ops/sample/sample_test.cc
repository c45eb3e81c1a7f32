#include "ops/sample/sample_backends.h"

#include <cmath>
#include <numeric>

#include "tests/support/cuda_test.h"

namespace nibble {
namespace {

using ops::SampleRule;
using test::DeviceTensor;
using test::TestTensor;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TestTensor rules_of(const std::vector<SampleRule>& rules) {
  TestTensor tensor({static_cast<int64_t>(rules.size() * sizeof(SampleRule))}, DType::u8);
  std::ranges::copy(rules, static_cast<SampleRule*>(tensor.view.raw()));
  return tensor;
}
TestTensor filled(const Shape& shape, DType dtype) {
  TestTensor tensor(shape, dtype);
  std::memset(tensor.view.raw(), 0, tensor.view.bytes());
  return tensor;
}

// The chain in f64, from a sorted list, with the draw of draw.h.
int32_t oracle(const std::vector<float>& logits, const SampleRule& rule) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[size_t(a)] > logits[size_t(b)]; });
  const float best = logits[static_cast<size_t>(order[0])];
  if (rule.temperature == 0) return order[0];
  const auto p = [&](int32_t id) {
    return std::exp((double{logits[static_cast<size_t>(id)]} - best) / rule.temperature);
  };
  std::erase_if(order,
                [&](int32_t id) { return p(id) < std::max(std::exp(double{rule.log_min_p}) * (1 - 1e-6), 5e-14); });
  const bool few = rule.top_k > 0 && static_cast<size_t>(rule.top_k) < order.size();
  if (few) order.resize(static_cast<size_t>(rule.top_k));
  double total = 0;
  for (const int32_t id : order) total += p(id);
  if (rule.top_p < 1) {
    double kept = 0;
    size_t n = 0;
    while (n < order.size() && kept < rule.top_p * total) kept += p(order[n++]);
    order.resize(n);
    total = kept;
  }
  if (!few && rule.top_p == 1) std::ranges::sort(order);
  const auto bits = philox(rule.seed, rule.position);
  double target = (bits[0] * 0x1p32 + bits[1]) * 0x1p-64 * total;
  for (const int32_t id : order) {
    target -= p(id);
    if (target < 0) return id;
  }
  return order.back();
}

std::vector<SampleRule> many_rules() {
  std::vector<SampleRule> rules;
  for (const float temperature : {0.0f, 0.3f, 1.0f, 4.0f}) {
    for (const int32_t top_k : {0, 1, 20, 1000}) {
      for (const float top_p : {1.0f, 0.95f, 0.2f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          rules.push_back({.temperature = temperature, .top_p = top_p, .top_k = top_k, .log_min_p = std::log(min_p)});
          rules.back().seed = rules.size();
          rules.back().position = rules.size() % 7;
        }
      }
    }
  }
  return rules;
}

// Spread as logits are; rounded to few values, so that many are equal; all equal; one far above the rest.
TestTensor many_logits(const Shape& shape) {
  Rng rng(41);
  TestTensor logits = TestTensor::normal(rng, shape, 3);
  const auto V = static_cast<size_t>(shape[1]);
  for (size_t t = 0; t < static_cast<size_t>(shape[0]); ++t) {
    const auto row = logits.values().subspan(t * V, V);
    if (t % 5 == 1) std::ranges::transform(row, row.begin(), [](float x) { return std::round(2 * x) / 2; });
    if (t % 5 == 3) std::ranges::fill(row, -1.25f);
    if (t % 5 == 4) row[V / 2] = 60;
    if (t % 5 == 2) row[V / 3] = -kInfinity;
  }
  return logits;
}

TEST(SampleWeight, IsTheExponential) {
  for (float y = 0; y > -30.5f; y -= 0.00137f) {
    const double expected = std::exp(double{y}) * 0x1p44;
    EXPECT_NEAR(static_cast<double>(ops::sample_weight(y)), expected, expected * 0x1p-22 + 1) << y;
  }
  EXPECT_EQ(ops::sample_weight(0), uint64_t{1} << 44);
}

TEST(SampleWeight, LikelihoodOrderIsThatOfLogits) {
  const std::vector<float> falling = {kInfinity, 1e30f, 2, 1, 1e-40f, 0, -1e-40f, -1, -2, -1e30f, -kInfinity};
  for (size_t i = 0; i < falling.size(); ++i) {
    EXPECT_EQ(ops::logit_of_order(ops::likelihood_order(falling[i])), falling[i]);
    if (i == 0) continue;
    EXPECT_GT(ops::likelihood_order(falling[i]), ops::likelihood_order(falling[i - 1])) << falling[i];
  }
  EXPECT_EQ(ops::likelihood_order(-0.0f), ops::likelihood_order(0.0f));
}

TEST(Sample, IsTheChainOfF64) {
  test::TestContext context;
  const std::vector<SampleRule> rules = many_rules();
  const auto T = static_cast<int64_t>(rules.size());
  for (const int64_t V : {int64_t{7}, int64_t{101}, int64_t{3000}}) {
    const TestTensor logits = many_logits({T, V});
    TestTensor on_rows = rules_of(rules), ids = filled({T}, DType::i32), position = filled({T}, DType::i32);
    Tensor none;
    ops::sample(context.cx, logits.view, none, on_rows.view, none, ids.view, position.view);
    for (int64_t t = 0; t < T; ++t) {
      const auto row = logits.view.rows(t, t + 1).f32_span();
      const SampleRule& rule = rules[static_cast<size_t>(t)];
      EXPECT_EQ(ids.view.i32()[t], oracle({row.begin(), row.end()}, rule))
          << V << " ids, rule " << t << ": temperature " << rule.temperature << ", top_k " << rule.top_k << ", top_p "
          << rule.top_p << ", min_p " << std::exp(rule.log_min_p);
      EXPECT_EQ(position.view.i32()[t], 1);
      EXPECT_EQ(static_cast<SampleRule*>(on_rows.view.raw())[t].position, rule.position + 1);
    }
  }
}

// Chi-square over ids whose share is known: 99.9 % of good samples lie below the bound for as many degrees of freedom.
TEST(Sample, FollowsTheDistribution) {
  const std::vector<float> logits = {2, 1, 0.5f, 0.5f, 0, -1, -2, -3, -kInfinity, 1.5f};
  constexpr int kDraws = 50000;
  for (const float top_p : {1.0f, 0.97f}) {
    SampleRule rule{.temperature = 0.8f, .top_p = top_p, .seed = 7};
    std::vector<int> counts(logits.size());
    std::vector<std::pair<float, int32_t>> scratch;
    for (int i = 0; i < kDraws; ++i, ++rule.position) {
      ++counts[static_cast<size_t>(ops::sample_row(logits, rule, scratch))];
    }
    double total = 0, chi_square = 0;
    int degrees = -1;
    const auto p = [&](size_t i) { return counts[i] == 0 ? 0 : std::exp(logits[i] / 0.8); };
    for (size_t i = 0; i < logits.size(); ++i) total += p(i);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (counts[i] == 0) continue;
      const double expected = p(i) / total * kDraws;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++degrees;
    }
    EXPECT_EQ(degrees, top_p == 1 ? 8 : 5) << "the three least likely fall to top_p";
    EXPECT_LT(chi_square, top_p == 1 ? 26.12 : 20.52);
  }
}

TEST(Sample, PenaltiesAndMasksAreOfTheRow) {
  test::TestContext context;
  constexpr int64_t kIds = 4;
  TestTensor logits({3, kIds});
  for (int64_t t = 0; t < 3; ++t)
    std::ranges::copy(std::vector<float>{1.0f, 0.5f, 0.45f, 9}, logits.view.f32() + 4 * t);
  TestTensor allowed({kIds}, DType::u8), seen = filled({2, kIds}, DType::u16);
  std::ranges::copy(std::vector<uint8_t>{1, 1, 1, 0}, allowed.view.u8());
  seen.view.u16()[0] = ops::kSeenInPrompt;
  TestTensor rules = rules_of({{.presence = 0.5f, .frequency = 0.3f, .seen = 1}, {}, {.repetition = 2.5f, .seen = 0}});
  TestTensor ids = filled({3}, DType::i32);
  Tensor none;
  std::vector<std::vector<int32_t>> said;
  for (int i = 0; i < 4; ++i) {
    ops::sample(context.cx, logits.view, allowed.view, rules.view, seen.view, ids.view, none);
    said.push_back({ids.view.i32(), ids.view.i32() + 3});
  }
  // As in the sampler's own test: 1.0; .2 .5 .45; .2 -.3 .45; .2 -.3 -.35. With repetition .4 .5 .45, then .4 .2 .45,
  // then .4 .2 .18: once is enough.
  EXPECT_EQ(said, (std::vector<std::vector<int32_t>>{{0, 0, 1}, {1, 0, 2}, {2, 0, 0}, {0, 0, 0}}));
  const std::vector<uint16_t> expected = {ops::kSeenInPrompt + 2, 1, 1, 0, 2, 1, 1, 0};
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), seen.view.u16()));
}

void expect_as_on_the_cpu(test::CudaContext& gpu, decltype(ops::sample)& sample, const std::vector<int64_t>& sizes) {
  test::TestContext context;
  std::vector<SampleRule> rules = many_rules();
  const auto T = static_cast<int64_t>(rules.size());
  for (const int64_t V : sizes) {
    const TestTensor logits = many_logits({T, V});
    for (size_t t = 0; t < rules.size(); t += 3) {
      rules[t].seen = static_cast<int32_t>(t % 4);
      rules[t].presence = 0.5f, rules[t].frequency = 0.2f, rules[t].repetition = 1.3f;
    }
    // A row of the table belongs to one row of the batch.
    int32_t next = 0;
    for (SampleRule& rule : rules) rule.seen = rule.seen < 0 ? -1 : next++;
    TestTensor seen = filled({next, V}, DType::u16), allowed({V}, DType::u8);
    Rng rng(7);
    for (int64_t i = 0; i < next * V; ++i) {
      seen.view.u16()[i] = rng.below(20) > 0 ? 0 : static_cast<uint16_t>(rng.below(3) + (i % 2 << 15));
    }
    for (int64_t i = 0; i < V; ++i) allowed.view.u8()[i] = i % 17 != 1;
    TestTensor host_rules = rules_of(rules), ids = filled({T}, DType::i32), position = filled({T}, DType::i32);
    DeviceTensor on_device(gpu, logits), seen_there(gpu, seen), allowed_there(gpu, allowed),
        rules_there(gpu, host_rules), ids_there(gpu, ids), position_there(gpu, position);
    auto graph = gpu.stream->capture([&] {
      sample(gpu.cx, on_device.view, allowed_there.view, rules_there.view, seen_there.view, ids_there.view,
             position_there.view);
    });
    ASSERT_TRUE(graph.ok()) << graph.status().text();
    for (int step = 0; step < 6; ++step) {
      ops::sample(context.cx, logits.view, allowed.view, host_rules.view, seen.view, ids.view, position.view);
      gpu.stream->replay(**graph);
      test::expect_same_bits(ids_there.fetch().view, ids.view, "ids");
      test::expect_same_bits(rules_there.fetch().view, host_rules.view, "rules");
      test::expect_same_bits(seen_there.fetch().view, seen.view, "seen");
      test::expect_same_bits(position_there.fetch().view, position.view, "positions");
    }
  }
}

TEST(Sample, OnCudaAsOnTheCpu) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  expect_as_on_the_cpu(gpu, ops::sample, {5, 101, 2048});
}

TEST(Sample, OnCudaWithoutClustersAsOnTheCpu) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  expect_as_on_the_cpu(gpu, ops::sample_single_cuda, {5, 101, 2048});
}

TEST(Sample, LargeVocabulariesOnCudaAsOnTheCpu) {
  NIBBLE_CUDA_OR_SKIP(gpu);
  expect_as_on_the_cpu(gpu, ops::sample, {30011, 248320});
  expect_as_on_the_cpu(gpu, ops::sample_single_cuda, {30011, 248320});
}

}  // namespace
}  // namespace nibble

// Projections follow from byte counts: a small model, counted by hand.
#include "gate/projection.h"

#include <gtest/gtest.h>

#include "checkpoint/activations.h"
#include "checkpoint/synthetic.h"
#include "tests/support/small_config.h"

namespace nibble::gate {
namespace {

// H 32, I 48, V 1000; three delta-rule layers with one key head and two value heads of 16, one attention layer with one
// head of 16.
model::Config small_config() {
  model::Config c = test::small_config("9b", false);
  c.vocab = 1000;
  return c;
}

// Weights. Delta rule: qkv 64x32, z 32x32, out 32x32 in NVFP4, b and a 2x32 in BF16; attention: q and its gate 32x32, k
// and v 16x32, o 32x16; MLP: 3 times 48x32; the head 1000x32.
constexpr uint64_t kDelta = 64 * 32 + 32 * 32 + 32 * 32, kGates = 2 * 2 * 32,
                   kAttention = 32 * 32 + 2 * 16 * 32 + 32 * 16, kMlp = 3 * 48 * 32, kHead = 1000 * 32;
constexpr uint64_t kNvfp4 = 3 * kDelta + kAttention + 4 * kMlp, kBf16 = 3 * kGates + kHead;
constexpr uint64_t kWeightBytes = kNvfp4 / 16 * 9 + kBf16 * 2 + 32 * 2;  // and a row of the embedding

// State of a sequence: 2 heads of 16x16 and 3 columns of the 64 channels of the convolution, f32, read and written;
// keys and values of 16, BF16, of the tokens before.
constexpr uint64_t state_bytes(uint64_t depth) {
  return 3 * 2 * 4 * (2 * 16 * 16 + 3 * 64) + depth * 2 * 16 * 2;
}

// Round numbers: 1 GB/s, and 1000 lane-instructions per nanosecond.
constexpr Machine kMachine{.name = "test",
                           .title = "a machine of round numbers",
                           .bytes_per_second = 1e9,
                           .bytes_source = "",
                           .nominal_bytes_per_second = 1e9,
                           .multiprocessors = 1,
                           .clock_hz = 1e12 / 128,
                           .bf16_flop_s = 1e9,
                           .fp8_flop_s = 2e9,
                           .fp4_flop_s = 4e9,
                           .flop_source = ""};

checkpoint::LoadedModel shapes_of(const model::Config& config, ops::WeightFormat format, bool quantized_head = false) {
  ThreadPool pool(1);
  checkpoint::SyntheticOptions options;
  options.quantized_head = quantized_head;
  options.shapes_only = true;
  auto model = checkpoint::synthetic_model(config, format, pool, options);
  NIBBLE_CHECK(model.ok());
  return std::move(*model);
}

ProjectionOptions options() {
  return {.prompts = {1, 4096}, .depths = {100}, .batches = {8}, .batch_depth = 200, .share = 0.5};
}

TEST(Projection, DecodesAtTheRateOfItsBytes) {
  const auto model = shapes_of(small_config(), ops::WeightFormat::nvfp4);
  const auto p = project(model.weights, kMachine, options());
  ASSERT_TRUE(p.ok()) << p.status().text();
  EXPECT_EQ(p->weight_bytes_per_token, kWeightBytes);
  ASSERT_EQ(p->speech.size(), 2u);
  const ProjectedStep &alone = p->speech[0], &together = p->speech[1];
  EXPECT_EQ(alone.bytes, kWeightBytes + state_bytes(100));
  EXPECT_DOUBLE_EQ(alone.ceiling_tok_s, 1e9 / static_cast<double>(kWeightBytes + state_bytes(100)));
  EXPECT_DOUBLE_EQ(alone.tok_s, 0.5 * alone.ceiling_tok_s);
  EXPECT_EQ(together.bytes, kWeightBytes + 8 * state_bytes(200));
  EXPECT_DOUBLE_EQ(together.ceiling_tok_s, 8e9 / static_cast<double>(kWeightBytes + 8 * state_bytes(200)));
}

TEST(Projection, DecodesAtTheRateOfItsInstructionsWhereThatIsLower) {
  const auto model = shapes_of(small_config(), ops::WeightFormat::nvfp4);
  Machine slow = kMachine;
  slow.clock_hz = 1e9 / 128;  // one lane-instruction for each byte, where a weight of half a byte takes several
  const auto p = project(model.weights, slow, options());
  ASSERT_TRUE(p.ok());
  ASSERT_EQ(p->formats.size(), 2u);
  const ProjectedFormat &bf16 = p->formats[0], &nvfp4 = p->formats[1];
  EXPECT_EQ(bf16.name, "bf16");
  EXPECT_EQ(bf16.weights, kBf16);
  EXPECT_EQ(nvfp4.weights, kNvfp4);
  EXPECT_DOUBLE_EQ(bf16.available, 2);
  EXPECT_DOUBLE_EQ(nvfp4.available, 0.5625);
  EXPECT_GT(nvfp4.needed[0], nvfp4.available);
  const double needed = nvfp4.needed[0] * static_cast<double>(kNvfp4) + bf16.needed[0] * static_cast<double>(kBf16);
  EXPECT_NEAR(p->speech[0].ceiling_tok_s, 1e9 / needed, 1e-9 * 1e9 / needed);
}

TEST(Projection, ReadsPromptsAtTheRateOfProductsOrBytes) {
  auto model = shapes_of(small_config(), ops::WeightFormat::nvfp4);
  auto p = project(model.weights, kMachine, options());
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(p->products, "BF16");
  // One token: 2 FLOP at 1 GFLOP/s take longer than the 0.5625 bytes of a weight and as long as the 2 bytes of BF16.
  const double body = static_cast<double>(kNvfp4 + 3 * kGates), head = static_cast<double>(kHead);
  EXPECT_NEAR(p->prompts[0].floor_ms, (2 * body + 2 * head) * 1e-6, 1e-9);
  EXPECT_NEAR(p->prompts[1].floor_ms, (4096 * 2 * body + 2 * head) * 1e-6, 1e-6);
  EXPECT_NEAR(p->prompts[1].most_tok_s, 4096e3 / p->prompts[1].floor_ms, 1e-6);

  // With rounded inputs NVFP4 is multiplied four times as fast: 0.5 ns a weight and token, less than its bytes take.
  ASSERT_TRUE(checkpoint::set_activations(model.weights, checkpoint::Activations::a4_token).ok());
  p = project(model.weights, kMachine, options());
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(p->products, "BF16 and FP4");
  const double gates = static_cast<double>(3 * kGates), nvfp4 = static_cast<double>(kNvfp4);
  EXPECT_NEAR(p->prompts[0].floor_ms, (0.5625 * nvfp4 + 2 * gates + 2 * head) * 1e-6, 1e-9);
  EXPECT_NEAR(p->prompts[1].floor_ms, (4096 * (0.5 * nvfp4 + 2 * gates) + 2 * head) * 1e-6, 1e-6);
  // A machine without such products multiplies in BF16.
  Machine old = kMachine;
  old.fp4_flop_s = 0;
  EXPECT_EQ(project(model.weights, old, options())->products, "BF16");
}

TEST(Projection, TakesTheShareOfTheNearestStepThatWasMeasured) {
  const auto model = shapes_of(small_config(), ops::WeightFormat::nvfp4);
  ProjectionOptions o{.prompts = {}, .depths = {100, 9000}, .batches = {2, 30}, .batch_depth = 200};
  const auto shares = reached_shares(Json::parse(R"({"speech": [
      {"depth": 128, "sequences": 1, "share_of_probe": 0.5}, {"depth": 16384, "sequences": 1, "share_of_probe": 0.4},
      {"depth": 2048, "sequences": 32, "share_of_probe": 0.3}]})"));
  ASSERT_TRUE(shares.ok()) << shares.status().text();
  o.reached = *shares;
  o.reached_source = "a report";
  const auto p = project(model.weights, kMachine, o);
  ASSERT_TRUE(p.ok());
  const double expected[] = {0.5, 0.4, 0.5, 0.3};
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(p->speech[i].share, expected[i]) << i;
  EXPECT_EQ(p->json()["share_source"], "a report");
  EXPECT_EQ(p->json()["projected"], true);
  for (const char* bad : {"[]", "{}", R"({"speech": []})", R"({"speech": [1]})", R"({"speech": {"depth": 1}})",
                          R"({"speech": [{"depth": 1, "sequences": "2", "share_of_probe": 0.5}]})",
                          R"({"speech": [{"depth": 1, "sequences": 2, "share_of_probe": -1}]})"}) {
    EXPECT_EQ(reached_shares(Json::parse(bad)).status().code(), Code::corrupt) << bad;
  }
}

TEST(Projection, RefusesWhatNoGpuMultiplies) {
  const auto model = shapes_of(small_config(), ops::WeightFormat::f32);
  EXPECT_EQ(project(model.weights, kMachine, options()).status().code(), Code::unsupported);
}

// 4.47 GB of weights, 0.1 of state and 0.07 of keys and values at 240 GB/s; 28.3 TFLOP for 2048 tokens at 500 TFLOP/s.
TEST(Projection, SaysOfA9BOnAGb10WhatTheByteModelSays) {
  auto model = shapes_of(*model::builtin_config("9b"), ops::WeightFormat::nvfp4, true);
  ASSERT_TRUE(checkpoint::set_activations(model.weights, checkpoint::Activations::a4_token).ok());
  ProjectionOptions o{.prompts = {2048}, .depths = {2048}, .batches = {}};
  o.reached = default_reached();
  const auto p = project(model.weights, *find_machine("gb10"), o);
  ASSERT_TRUE(p.ok());
  EXPECT_NEAR(p->speech[0].ceiling_tok_s, 51.7, 0.15);
  EXPECT_NEAR(p->prompts[0].floor_ms, 57 + 2.4, 1.0);  // products, and the head's bytes
  for (const ProjectedFormat& f : p->formats) EXPECT_LT(f.needed[3], f.available) << f.name;
}

}  // namespace
}  // namespace nibble::gate

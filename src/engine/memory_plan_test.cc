#include "engine/memory_plan.h"

#include <gtest/gtest.h>

#include "tensor/device.h"

namespace nibble::engine {
namespace {

const checkpoint::LoadedModel& tiny_voice() {
  static const auto model = std::move(checkpoint::load_checkpoint(NIBBLE_SOURCE_DIR "/models/tiny-voice", {})).value();
  return model;
}

TEST(MemoryPlan, AddsUpAndGrowsWithSlotsAndContext) {
  const EngineOptions options{.context = 4096, .slots = 2};
  const MemoryPlan plan = *plan_memory(tiny_voice(), options);
  uint64_t sum = 0;
  for (const MemoryItem& item : plan.items) sum += item.bytes;
  EXPECT_EQ(plan.total(), sum);
  EXPECT_EQ(plan.context, 4096);
  EXPECT_FALSE(plan.context_reduced);
  EXPECT_NE(plan.text().find("keys and values, 2 x 4096 tokens"), std::string::npos) << plan.text();
  const auto total = [](EngineOptions o) { return plan_memory(tiny_voice(), o)->total(); };
  const uint64_t states = model::Slots::bytes_needed(tiny_voice().weights.config, 2, 4096, DType::bf16);
  EXPECT_EQ(total({.context = 4096, .slots = 4}) - plan.total(),
            states + 2 * 2 * static_cast<uint64_t>(tiny_voice().weights.config.vocab) +  // what was seen
                2 * static_cast<uint64_t>(4 * (tiny_voice().weights.config.vocab + 4) + sizeof(ops::SampleRule)));
}

TEST(MemoryPlan, ALimitShortensTheContextThatNobodyAskedFor) {
  const uint64_t usual = plan_memory(tiny_voice(), {})->total();
  EngineOptions options;
  options.memory_limit = usual;
  EXPECT_FALSE(plan_memory(tiny_voice(), options)->context_reduced);
  const uint64_t short_one = plan_memory(tiny_voice(), {.context = 1024})->total();
  options.memory_limit = short_one + 1;
  const MemoryPlan plan = *plan_memory(tiny_voice(), options);
  EXPECT_EQ(plan.context, 1024);
  EXPECT_TRUE(plan.context_reduced);
  EXPECT_LE(plan.total(), options.memory_limit);
  EXPECT_NE(plan.text().find("so that it fits"), std::string::npos);
}

TEST(MemoryPlan, RefusesWhatDoesNotFitAndSaysWhatWould) {
  const uint64_t half = plan_memory(tiny_voice(), {.context = 4096, .slots = 4})->total();
  const auto refused = plan_memory(tiny_voice(), {.context = 4096, .slots = 16, .memory_limit = half});
  EXPECT_EQ(refused.status().code(), Code::out_of_memory);
  EXPECT_NE(refused.status().hint().find("--slots 4"), std::string::npos) << refused.status().text();
  EXPECT_NE(refused.status().hint().find("--context "), std::string::npos) << refused.status().text();
  const auto none = plan_memory(tiny_voice(), {.memory_limit = 1000});
  EXPECT_EQ(none.status().code(), Code::out_of_memory);
  EXPECT_NE(none.status().hint().find("quantize"), std::string::npos) << none.status().text();
  EXPECT_EQ(plan_memory(tiny_voice(), {.context = 1 << 20}).status().code(), Code::invalid_argument);
}

// What the plan says of a GPU is what is taken there.
TEST(MemoryPlan, OfAGpuIsWhatIsReserved) {
  const Device gpu{DeviceKind::cuda, 0};
  const auto before = open_device(gpu);
  if (!before.ok()) GTEST_SKIP() << "no GPU: " << before.status().text();
  const auto model = std::make_shared<checkpoint::LoadedModel>(
      std::move(checkpoint::load_checkpoint(NIBBLE_SOURCE_DIR "/models/tiny-voice", {})).value());
  const auto tokenizer = std::make_shared<text::Tokenizer>(
      std::move(text::Tokenizer::load(NIBBLE_SOURCE_DIR "/models/tiny-voice")).value());
  const EngineOptions options{.context = 4096, .device = gpu, .slots = 64};
  const MemoryPlan plan = *plan_memory(*model, options);
  const auto engine = start_engine(model, tokenizer, options);
  ASSERT_TRUE(engine.ok()) << engine.status().text();
  const uint64_t taken = before->free_bytes - open_device(gpu)->free_bytes;
  RecordProperty("planned", std::to_string(plan.total()));
  RecordProperty("taken", std::to_string(taken));
  EXPECT_LE(taken, plan.total() + (uint64_t{64} << 20));
  EngineOptions too_much = options;
  too_much.memory_limit = uint64_t{1} << 20;
  EXPECT_EQ(start_engine(model, tokenizer, too_much).status().code(), Code::out_of_memory);
}

}  // namespace
}  // namespace nibble::engine

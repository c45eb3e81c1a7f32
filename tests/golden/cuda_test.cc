// Whole models on a GPU: near the f32 goldens of transformers, greedy replies equal where the margin allows, and a
// sequence's bits its own. Skips where there is no GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "gate/divergence.h"
#include "gate/op_table.h"
#include "io/jsonl.h"
#include "io/safetensors.h"
#include "ops/loss/kl.h"
#include "tensor/numeric.h"
#include "tests/support/device_model.h"
#include "tests/support/tolerance.h"
#include "text/chat_data.h"

namespace nibble::test {
namespace {

class CudaModel : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = DeviceContext::open();
    if (!opened.ok()) GTEST_SKIP() << "no GPU: " << opened.status().text();
    device_ = std::move(*opened);
  }
  std::vector<std::vector<int32_t>> chats() const {
    const auto tokenizer = std::move(text::Tokenizer::load(kTinyVoice)).value();
    const auto chat_template = std::move(text::ChatTemplate::load(kTinyVoice)).value();
    return *text::tokenize_chats(kGolden / "tiny-voice/calibration_texts.jsonl", chat_template, tokenizer);
  }

  std::unique_ptr<DeviceContext> device_;
  ThreadPool pool_{2};
  Context host_{pool_};
};

TEST_F(CudaModel, LogitsOfTinyVoiceAreNearTransformers) {
  const checkpoint::LoadedModel host = load(kTinyVoice);
  DeviceModel model(*device_, host.weights);
  const auto golden = std::move(Safetensors::open(kGolden / "tiny-voice/golden.logits.safetensors")).value();
  double worst = 0;
  for (int i = 0; i < 8; ++i) {
    const Tensor ids = *golden.tensor(*golden.find(fmt::format("ids.{}", i)));
    const Tensor want = *golden.tensor(*golden.find(fmt::format("logits.{}", i)));
    const int64_t T = ids.elements();
    const OwnedTensor logits = model.logits({ids.i32(), static_cast<size_t>(T)});
    worst = std::max(worst, max_abs_difference(logits.view.rows(T - 16, T).f32_span(), want.f32_span()));
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LE(worst, kBf16Logits);
}

double relative_squares(const OwnedTensor& got, const OwnedTensor& want) {
  const auto a = got.view.f32_span(), b = want.view.f32_span();
  double error = 0, squares = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double x = b[i], difference = a[i] - x;
    error += difference * difference;
    squares += x * x;
  }
  return error / squares;
}

// These models have random weights and nearly empty states, which the norm behind the delta rule scales up: what
// rounding does to them is measured on the CPU, where only inputs of products are rounded.
TEST_F(CudaModel, LogitsOfMicroModelsAreNearTheCpu) {
  Context rounding(pool_, Numeric::bf16_act);
  for (const char* folder : {"micro", "micro_tied"}) {
    for (const bool quantized : {false, true}) {
      checkpoint::LoadedModel host = load(kGolden / folder);
      if (quantized) quantize_in_place(host_, host.weights, Scales::tied);
      // The goldens' weights are f32; a GPU holds BF16.
      std::vector<std::vector<uint16_t>> rounded;
      host.weights.for_each_linear([&](std::string_view, ops::Linear& w) {
        if (w.format != ops::WeightFormat::f32) return;
        auto& bits = rounded.emplace_back();
        for (const float x : w.weight.f32_span()) bits.push_back(f32_to_bf16(x));
        w.weight = Tensor(bits.data(), DType::bf16, w.weight.shape());
        w.format = ops::WeightFormat::bf16;
      });
      if (host.weights.tied) host.weights.embed = host.weights.lm_head.weight;
      DeviceModel model(*device_, host.weights);
      Rng rng(3);
      double gpu = 0, cpu = 0;  // squares of relative errors
      for (const int64_t T : {1, 9, 16, 40, 75, 200}) {
        std::vector<int32_t> ids;
        while (static_cast<int64_t>(ids.size()) < T) {
          ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint32_t>(host.weights.config.vocab))));
        }
        const OwnedTensor want = logits_of(host_, host.weights, ids);
        const double on_gpu = relative_squares(model.logits(ids), want);
        EXPECT_LE(std::sqrt(on_gpu), kBf16Relative) << folder << " quantized " << quantized << " T " << T;
        gpu += on_gpu;
        cpu += relative_squares(logits_of(rounding, host.weights, ids), want);
      }
      EXPECT_LE(std::sqrt(gpu / cpu), kBf16OfCpu) << folder << " quantized " << quantized;
    }
  }
}

// Weights in NVFP4, inputs in BF16: how far the GPU's roundings move the predictions.
TEST_F(CudaModel, DivergesLittleFromTheExactCpu) {
  checkpoint::LoadedModel host = load(kTinyVoice);
  quantize_in_place(host_, host.weights, Scales::tied);
  DeviceModel model(*device_, host.weights);
  double sum = 0;
  size_t tokens = 0;
  for (const std::vector<int32_t>& ids : chats()) {
    const OwnedTensor want = logits_of(host_, host.weights, ids), got = model.logits(ids);
    std::vector<double> kl(ids.size());
    std::vector<uint8_t> equal(ids.size());
    ops::softmax_compare(host_, want.view, got.view, kl, equal);
    for (const double x : kl) sum += x;
    tokens += ids.size();
    if (tokens > 20000) break;
  }
  const double mean = sum / static_cast<double>(tokens);
  RecordProperty("mean_kl", std::to_string(mean));
  EXPECT_LT(mean, 2e-4);
}

// What `nibble eval --device cuda` measures beside what it measures on the CPU.
TEST_F(CudaModel, EvalJudgesAsOnTheCpu) {
  const checkpoint::LoadedModel reference = load(kTinyVoice);
  checkpoint::LoadedModel quantized = load(kTinyVoice);
  quantize_in_place(host_, quantized.weights, Scales::tied);
  auto some = chats();
  some.resize(std::min<size_t>(some.size(), 40));
  const auto cpu = gate::measure_divergence(host_, reference.weights, quantized.weights, some, {});
  const auto gpu = gate::measure_divergence(host_, reference.weights, quantized.weights, some, {}, &device_->cx);
  ASSERT_TRUE(gpu.ok()) << gpu.status().text();
  RecordProperty("kl_cpu", std::to_string(cpu->mean_kl));
  RecordProperty("kl_gpu", std::to_string(gpu->mean_kl));
  EXPECT_EQ(gpu->tokens, cpu->tokens);
  EXPECT_NEAR(gpu->mean_kl, cpu->mean_kl, 2e-4 + 0.1 * cpu->mean_kl);
  EXPECT_NEAR(gpu->perplexity_a, cpu->perplexity_a, 0.01 * cpu->perplexity_a);
  EXPECT_NEAR(gpu->perplexity_b, cpu->perplexity_b, 0.01 * cpu->perplexity_b);
  EXPECT_NEAR(gpu->top1, cpu->top1, 0.015);
}

// Drawn ids depend on the logits that a GPU rounds; who speaks beside whom, and graphs, must not change them.
TEST_F(CudaModel, DrawnRepliesAreTheirOwn) {
  const checkpoint::LoadedModel host = load(kTinyVoice);
  DeviceModel model(*device_, host.weights);
  const auto prompts = chats();
  const auto rule_of = [](int64_t i) {
    ops::SampleRule rule{.temperature = i % 3 == 0 ? 0.0f : 0.7f + 0.1f * static_cast<float>(i % 5), .seed = 9};
    if (i % 2 == 1) rule.top_p = 0.9f;
    if (i % 4 == 2) rule.top_k = 20;
    return rule;
  };
  const auto speak = [&](int64_t first, int64_t count, bool graphs) {
    const model::RunnerOptions options{.slots = count, .capacity = 1024, .graphs = graphs};
    auto runner = std::move(model::BatchRunner::create(device_->cx, model.weights, options)).value();
    std::vector<std::vector<int32_t>> said(static_cast<size_t>(count));
    std::vector<model::Speaker> speakers;
    for (int64_t i = 0; i < count; ++i) {
      auto ids = prompts[static_cast<size_t>(first + i)];
      ids.resize(std::min<size_t>(ids.size(), 100));
      auto& mine = said[static_cast<size_t>(i)];
      ops::SampleRule rule = rule_of(first + i);
      if ((first + i) % 5 == 4) {  // repeats itself less
        rule.seen = static_cast<int32_t>(i);
        rule.frequency = 0.5f;
        EXPECT_TRUE(runner->begin_output(i, ids).ok());
      }
      EXPECT_TRUE(runner->read(i, 0, ids, rule).ok());
      EXPECT_TRUE(runner->chosen(std::span(&mine.emplace_back(), 1)).ok());
      ++rule.position;
      speakers.push_back({i, static_cast<int64_t>(ids.size()), mine[0], rule});
    }
    EXPECT_TRUE(runner->set(speakers).ok());
    std::vector<int32_t> ids(said.size());
    for (int step = 0; step < 12; ++step) {
      EXPECT_TRUE(runner->step().ok());
      EXPECT_TRUE(runner->chosen(ids).ok());
      for (size_t i = 0; i < said.size(); ++i) said[i].push_back(ids[i]);
    }
    return said;
  };
  std::vector<std::vector<int32_t>> alone;
  for (int64_t i = 0; i < 16; ++i) alone.push_back(speak(i, 1, i % 2 == 0)[0]);
  EXPECT_EQ(speak(0, 16, true), alone);
  EXPECT_EQ(speak(0, 16, false), alone);
}

TEST_F(CudaModel, GreedyRepliesWhereTheMarginAllows) {
  const checkpoint::LoadedModel host = load(kTinyVoice);
  DeviceModel model(*device_, host.weights);
  auto runner =
      std::move(model::BatchRunner::create(device_->cx, model.weights, {.slots = 1, .capacity = 1024})).value();
  int judged = 0;
  EXPECT_TRUE(for_each_json_line(kGolden / "tiny-voice/greedy.jsonl", [&](Json& line, int64_t) {
                if (line["min_top2_gap"].get<double>() < 0.35) return Status();
                const auto prompt = line["prompt_ids"].get<std::vector<int32_t>>();
                const auto expected = line["greedy_ids"].get<std::vector<int32_t>>();
                std::vector<int32_t> reply(1);
                NIBBLE_RETURN_IF_ERROR(runner->read(0, 0, prompt));
                NIBBLE_RETURN_IF_ERROR(runner->chosen(reply));
                const model::Speaker speaker{0, static_cast<int64_t>(prompt.size()), reply[0]};
                NIBBLE_RETURN_IF_ERROR(runner->set({&speaker, 1}));
                while (reply.size() < expected.size()) {
                  int32_t id = 0;
                  NIBBLE_RETURN_IF_ERROR(runner->step());
                  NIBBLE_RETURN_IF_ERROR(runner->chosen({&id, 1}));
                  reply.push_back(id);
                }
                EXPECT_EQ(reply, expected) << line["min_top2_gap"];
                ++judged;
                return Status();
              }).ok());
  EXPECT_GT(judged, 20);
}

// Rows of a step: alone, among neighbours, at another place, with and without a graph.
TEST_F(CudaModel, ASequencesBitsAreItsOwn) {
  checkpoint::LoadedModel host = load(kTinyVoice);
  quantize_in_place(host_, host.weights, Scales::tied);
  DeviceModel model(*device_, host.weights);
  const auto V = static_cast<size_t>(host.weights.config.vocab);
  constexpr int kSteps = 4;
  Rng rng(5);
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 64; ++i) {
    auto& ids = prompts.emplace_back();
    for (uint32_t n = 1 + rng.below(300); n > 0; --n) ids.push_back(static_cast<int32_t>(rng.below(2000)));
  }
  // The logits of every step of the sequences first, first+1, … of `count`.
  const auto speak = [&](int first, int count, bool graphs) {
    const model::RunnerOptions options{.slots = count, .capacity = 512, .graphs = graphs};
    auto runner = std::move(model::BatchRunner::create(device_->cx, model.weights, options)).value();
    std::vector<model::Speaker> speakers;
    for (int i = 0; i < count; ++i) {
      const auto& ids = prompts[static_cast<size_t>(first + i)];
      const int64_t slot = count - 1 - i;
      EXPECT_TRUE(runner->read(slot, 0, ids).ok());
      speakers.push_back({slot, static_cast<int64_t>(ids.size()), ids[0]});
    }
    EXPECT_TRUE(runner->set(speakers).ok());
    std::vector<std::vector<float>> rows(static_cast<size_t>(count));
    std::vector<float> step(static_cast<size_t>(count) * V);
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_TRUE(runner->step().ok());
      device_->stream->copy(runner->logits().raw(), step.data(), step.size() * sizeof(float));
      EXPECT_TRUE(runner->wait().ok());
      for (size_t i = 0; i < rows.size(); ++i) {
        rows[i].insert(rows[i].end(), step.begin() + static_cast<std::ptrdiff_t>(i * V),
                       step.begin() + static_cast<std::ptrdiff_t>((i + 1) * V));
      }
    }
    return rows;
  };
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < 64; ++i) alone.push_back(speak(i, 1, i % 2 == 0)[0]);
  for (const auto& [first, count] : {std::pair{0, 2}, {3, 7}, {10, 16}, {20, 33}, {0, 64}}) {
    const auto together = speak(first, count, true);
    for (int i = 0; i < count; ++i) {
      const auto &a = alone[static_cast<size_t>(first + i)], &b = together[static_cast<size_t>(i)];
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << first + i << " of " << count;
    }
  }
}

// Marks between ops are in the graph of a step, or not, and change nothing else.
TEST_F(CudaModel, MarkedStepsSayTheSame) {
  const checkpoint::LoadedModel host = load(kTinyVoice);
  DeviceModel model(*device_, host.weights);
  auto runner =
      std::move(model::BatchRunner::create(device_->cx, model.weights, {.slots = 1, .capacity = 512})).value();
  const std::vector<int32_t> prompt(100, 7);
  const auto reply = [&](Marks* marks) {
    EXPECT_TRUE(runner->wait().ok());
    runner->set_marks(marks);
    std::vector<int32_t> ids(8);
    EXPECT_TRUE(runner->read(0, 0, prompt).ok());
    EXPECT_TRUE(runner->chosen({ids.data(), 1}).ok());
    const model::Speaker speaker{.position = 100, .id = ids[0]};
    EXPECT_TRUE(runner->set({&speaker, 1}).ok());
    for (size_t i = 1; i < ids.size(); ++i) {
      EXPECT_TRUE(runner->step().ok());
      EXPECT_TRUE(runner->chosen({&ids[i], 1}).ok());
    }
    return ids;
  };
  auto marks = std::move(Marks::create(device_->cx, gate::kMostMarks)).value();
  const auto plain = reply(nullptr);
  const int64_t nodes = runner->nodes();
  EXPECT_EQ(reply(&marks), plain);
  const auto laps = marks.laps();
  ASSERT_TRUE(laps.ok()) << laps.status().text();
  EXPECT_EQ(runner->nodes(), nodes + 1 + static_cast<int64_t>(laps->size()));
  EXPECT_EQ(laps->size(), static_cast<size_t>(7 * host.weights.config.layers + 4));
  // No lap is longer than the step, which is far below a second even on a slow GPU.
  for (const Lap& lap : *laps) EXPECT_TRUE(lap.us >= 0 && lap.us < 1e6) << lap.us;
  EXPECT_EQ(reply(nullptr), plain);
  EXPECT_EQ(runner->nodes(), nodes);
}

}  // namespace
}  // namespace nibble::test

// Calibrated quantization of models/tiny-voice against the statistics and losses that ModelOpt and llm-compressor left.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "io/json.h"
#include "io/safetensors.h"
#include "ops/embed/embed.h"
#include "quantize/awq.h"
#include "quantize/awq_scales.h"
#include "quantize/moments.h"
#include "tests/support/models.h"
#include "tests/support/temporary_folder.h"
#include "text/chat_data.h"

namespace nibble::quantize {
namespace {

using test::kGolden;
using test::kTinyVoice;
using Chats = std::vector<std::vector<int32_t>>;

Chats calibration_texts() {
  const text::ChatTemplate chat_template = text::ChatTemplate::load(kTinyVoice).value();
  const text::Tokenizer tokenizer = text::Tokenizer::load(kTinyVoice).value();
  return text::tokenize_chats(kGolden / "tiny-voice/calibration_texts.jsonl", chat_template, tokenizer).value();
}

class Ptq : public testing::Test {
 protected:
  // The embeddings of the chats, which are the inputs of layer 0.
  HiddenStates embed(const model::Weights& weights, const Chats& chats) {
    auto writer = HiddenStatesWriter::create(file_).value();
    int64_t tokens = 0;
    for (const auto& chat : chats) {
      const Arena::Scope scope(cx_.arena);
      Tensor h = cx_.arena.f32({static_cast<int64_t>(chat.size()), weights.config.hidden});
      ops::embed(cx_, chat, weights.embed, h);
      EXPECT_TRUE(writer.append(h).ok());
      tokens += h.dim(0);
    }
    EXPECT_TRUE(writer.commit().ok());
    return HiddenStates::open(file_, tokens, weights.config.hidden).value();
  }

  ThreadPool pool_{2};
  Context cx_{pool_};
  test::TemporaryFolder folder_;
  const Path file_ = folder_.path() / "hidden.f32";
  const std::string prefix_ = "model.layers.0.";
};

Status ignore(const Batch&, const model::BlockTrace&, const Tensor&) {
  return {};
}

// llm-compressor summed 2 x x^T over its sixteen longest rows; rows 0 to 15 of the sum are kept.
TEST_F(Ptq, HessianOfTheFirstMlpIsLlmCompressors) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats all = calibration_texts();
  Chats chats;
  for (size_t row : {31, 62, 46, 10, 56, 4, 8, 52, 54, 38, 17, 43, 57, 24, 28, 0}) chats.push_back(all[row]);
  const HiddenStates in = embed(model.weights, chats);
  const std::vector<Batch> batches = batches_of(chats);
  LayerRunner runner(cx_, model.weights.config, 0, batches);
  model::BlockWeights block = model.weights.blocks[0];
  const auto sites = sites_of(model.weights.config, prefix_, block);
  Moments moments(cx_, sites, {false, false, true, false});
  ASSERT_TRUE(runner.whole(block, in, &moments.tap(), ignore).ok());
  const Tensor hessian = moments.finish(SiteKind::mlp_in);

  const auto golden = Safetensors::open(kGolden / "compressed_tensors/gptq_hessian_rows.safetensors").value();
  const Tensor rows = *golden.tensor(golden.tensors()[0]);
  double largest = 0, worst = 0;
  for (int64_t i = 0; i < rows.elements(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(rows.f32()[i])));
    const double sum = static_cast<double>(hessian.f32()[i]) * static_cast<double>(in.tokens());
    worst = std::max(worst, std::abs(sum - rows.f32()[i]));
  }
  EXPECT_LE(worst, 1e-4 * largest);
}

// ModelOpt's awq_lite, whose candidates are s = a^alpha / w^(1-alpha) and whose loss is that of one linear's output,
// summed over the conversations: on all linears of layer 0, both ends and the middle of the curve, to 1e-3.
TEST_F(Ptq, AwqLossesAreModelOpts) {
  const checkpoint::LoadedModel model = test::load(kTinyVoice);
  const Chats chats = calibration_texts();
  const HiddenStates in = embed(model.weights, chats);
  const std::vector<Batch> batches = batches_of(chats, 1);  // a conversation each: ModelOpt's batches
  LayerRunner runner(cx_, model.weights.config, 0, batches);
  const auto golden = Safetensors::open(kGolden / "modelopt/awq_lite/search_fp32.safetensors").value();
  const std::string text = read_file(kGolden / "modelopt/awq_lite/losses_layer0.json").value();
  const Json search = parse_json(text, "losses").value();

  struct Candidate {
    OwnedTensor values;  // FQ(W s) / s
    double expected = 0, loss = 0;
  };
  std::map<const ops::Linear*, std::vector<Candidate>> candidates;
  model::BlockWeights block = model.weights.blocks[0];
  const auto sites = sites_of(model.weights.config, prefix_, block);
  for (const auto& readers : sites) {
    for (const Reader& reader : readers) {
      if (!search.contains(reader.module)) continue;
      const ops::Linear& linear = *reader.linear;
      const auto stored = [&](const char* name) {
        const Tensor values = *golden.tensor(*golden.find(reader.module + name));
        return std::vector<float>(values.f32(), values.f32() + values.elements());
      };
      const std::vector<float> a = stored(".act_scale"), w = stored(".weight_scale");
      for (const char* alpha : {"0.0", "0.5", "1.0"}) {
        std::vector<float> s(a.size());
        for (size_t k = 0; k < s.size(); ++k) {
          const float power = std::stof(alpha), tiny = 0x1p-126f;
          s[k] = std::clamp(std::pow(a[k], power) / (std::pow(w[k], 1 - power) + tiny), 1e-4f, 1e4f);
        }
        const auto [low, high] = std::minmax_element(s.begin(), s.end());
        const float middle = std::sqrt(*low * *high);
        for (float& value : s) value /= middle;
        Candidate candidate{OwnedTensor(DType::f32, {linear.out, linear.in})};
        candidate.expected = search[reader.module]["loss_sum_over_batches"][alpha];
        const Tensor values = candidate.values.view;
        awq_scale_columns(cx_, linear.weight, s, values);
        ops::nvfp4_fake(cx_, values, nvfp4_tensor_scale(ops::tensor_amax(cx_, values).amax), values);
        for (int64_t i = 0; i < values.elements(); ++i) values.f32()[i] /= s[static_cast<size_t>(i % linear.in)];
        candidates[&linear].push_back(std::move(candidate));
      }
    }
  }
  model::Tap tap;
  tap.linear_input = [&](const ops::Linear& linear, const Tensor& x) {
    const auto found = candidates.find(&linear);
    if (found == candidates.end()) return;
    const Arena::Scope scope(cx_.arena);
    Tensor y = cx_.arena.f32({x.dim(0), linear.out}), changed = cx_.arena.f32(y.shape());
    ops::linear(cx_, x, linear, y);
    for (Candidate& candidate : found->second) {
      ops::Linear disturbed;
      disturbed.out = linear.out, disturbed.in = linear.in, disturbed.weight = candidate.values.view;
      ops::linear(cx_, x, disturbed, changed);
      double sum = 0;
      for (int64_t i = 0; i < y.elements(); ++i) {
        const double e = static_cast<double>(changed.f32()[i]) - y.f32()[i];
        sum += e * e;
      }
      candidate.loss += sum / static_cast<double>(y.elements());
    }
  };
  ASSERT_TRUE(runner.whole(block, in, &tap, ignore).ok());
  EXPECT_EQ(candidates.size(), search.size());
  for (const auto& [linear, list] : candidates) {
    for (const Candidate& candidate : list) EXPECT_NEAR(candidate.loss / candidate.expected, 1, 1e-3);
  }
}

}  // namespace
}  // namespace nibble::quantize

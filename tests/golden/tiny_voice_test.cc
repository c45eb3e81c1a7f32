// models/tiny-voice against transformers: logits, greedy replies, calibrated amaxes and the KL of NVFP4 max.
#include <gtest/gtest.h>

#include <cmath>

#include "gate/divergence.h"
#include "gate/top_logprobs.h"
#include "io/jsonl.h"
#include "io/safetensors.h"
#include "model/forward.h"
#include "quantize/calibrate.h"
#include "tests/support/models.h"
#include "tests/support/temporary_folder.h"
#include "text/chat_data.h"

namespace nibble::test {
namespace {

class TinyVoice : public testing::Test {
 protected:
  ThreadPool pool_{2};
  Context cx_{pool_};
  const Path golden_ = kGolden / "tiny-voice";
};

int32_t argmax(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

TEST_F(TinyVoice, LogitsOfEightPrompts) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  const auto golden = std::move(Safetensors::open(golden_ / "golden.logits.safetensors")).value();
  for (int i = 0; i < 8; ++i) {
    const Tensor ids = *golden.tensor(*golden.find(fmt::format("ids.{}", i)));
    const Tensor want = *golden.tensor(*golden.find(fmt::format("logits.{}", i)));  // the last 16 positions
    const OwnedTensor logits = logits_of(cx_, model.weights, {ids.i32(), static_cast<size_t>(ids.elements())});
    const int64_t T = ids.elements();
    const Tensor got = logits.view.rows(T - 16, T);
    EXPECT_LE(max_abs_difference(got.f32_span(), want.f32_span()), 2e-4) << "prompt " << i;
    for (int64_t t = 0; t < 16; ++t) {
      EXPECT_EQ(argmax(got.rows(t, t + 1).f32_span()), argmax(want.rows(t, t + 1).f32_span())) << i << "," << t;
    }
  }
}

// The likeliest ten of each row are those of transformers, with their log softmax.
TEST_F(TinyVoice, TopLogprobsOfEightPrompts) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  const auto golden = std::move(Safetensors::open(golden_ / "golden.logits.safetensors")).value();
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 8; ++i) {
    const Tensor ids = *golden.tensor(*golden.find(fmt::format("ids.{}", i)));
    prompts.emplace_back(ids.i32(), ids.i32() + ids.elements());
  }
  TemporaryFolder scratch;
  ASSERT_TRUE(gate::write_top_logprobs(cx_, model.weights, prompts, 10, scratch / "top.jsonl", {}).ok());
  size_t i = 0;
  const auto check = [&](Json& line, int64_t) -> Status {
    EXPECT_EQ(line["ids"], Json(prompts[i]));
    const Tensor want = *golden.tensor(*golden.find(fmt::format("logits.{}", i)));  // the last 16 positions
    const size_t T = prompts[i++].size();
    EXPECT_EQ(line["top"].size(), T);
    for (size_t t = 0; t < 16; ++t) {
      const auto row = want.rows(static_cast<int64_t>(t), static_cast<int64_t>(t) + 1).f32_span();
      double sum = 0;
      for (const float logit : row) sum += std::exp(static_cast<double>(logit));
      std::vector<float> sorted(row.begin(), row.end());
      std::sort(sorted.begin(), sorted.end(), std::greater());
      const Json& top = line["top"][T - 16 + t];
      EXPECT_EQ(top.size(), 10u);
      for (size_t k = 0; k < 10; ++k) {
        const float logit = row[top[k][0].get<size_t>()];
        EXPECT_NEAR(top[k][1].get<double>(), logit - std::log(sum), 4e-4) << i << "," << t;
        EXPECT_NEAR(logit, sorted[k], 4e-4) << i << "," << t;
      }
    }
    return {};
  };
  ASSERT_TRUE(for_each_json_line(scratch / "top.jsonl", check).ok());
  EXPECT_EQ(i, 8u);
}

struct Greedy {
  std::vector<int32_t> prompt, reply;
  double gap;
};

std::vector<Greedy> greedy_cases(const Path& file) {
  std::vector<Greedy> cases;
  EXPECT_TRUE(for_each_json_line(file, [&](Json& line, int64_t) {
                cases.push_back({line["prompt_ids"].get<std::vector<int32_t>>(),
                                 line["greedy_ids"].get<std::vector<int32_t>>(), line["min_top2_gap"].get<double>()});
                return Status();
              }).ok());
  EXPECT_EQ(cases.size(), 60u);
  return cases;
}

// Prefill, then one token at a time, as the engine runs.
std::vector<int32_t> speak(Context& cx, const model::Weights& weights, const Greedy& expected, DType kv) {
  const auto n = static_cast<int64_t>(expected.prompt.size());
  model::State state(weights.config, n + 100, kv);
  OwnedTensor hidden(DType::f32, {n, weights.config.hidden}), row(DType::f32, {1, weights.config.hidden});
  OwnedTensor logits(DType::f32, {1, weights.config.vocab});
  EXPECT_TRUE(model::forward(cx, weights, expected.prompt, state, hidden.view).ok());
  model::head(cx, weights, hidden.view.rows(n - 1, n), logits.view);
  std::vector<int32_t> reply;
  while (true) {
    reply.push_back(argmax(logits.view.f32_span()));
    if (reply.size() == expected.reply.size()) return reply;
    EXPECT_TRUE(model::forward(cx, weights, {&reply.back(), 1}, state, row.view).ok());
    model::head(cx, weights, row.view, logits.view);
  }
}

TEST_F(TinyVoice, GreedyRepliesInF32) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  for (const Greedy& g : greedy_cases(golden_ / "greedy.jsonl")) {
    EXPECT_EQ(speak(cx_, model.weights, g, DType::f32), g.reply);
  }
}

TEST_F(TinyVoice, GreedyRepliesInBf16WhereTheMarginAllows) {
  const checkpoint::LoadedModel model = load(kTinyVoice);
  cx_.numeric = Numeric::bf16_act;
  for (const Greedy& g : greedy_cases(golden_ / "greedy.jsonl")) {
    if (g.gap < 0.35) continue;
    EXPECT_EQ(speak(cx_, model.weights, g, DType::bf16), g.reply) << g.gap;
  }
}

// The W4A4 goldens were made with the listed static input amaxes. So are ours: a scale one ulp away moves single codes,
// and with them the mean KL by a per cent and the top-1 agreement by .004.
class TinyVoiceQuantized : public TinyVoice {
 protected:
  static void SetUpTestSuite() {
    shared_ = new Shared;
    shared_->golden = *parse_json(*read_file(kGolden / "tiny-voice/calibration.json"), "calibration.json");
    const auto tokenizer = std::move(text::Tokenizer::load(kTinyVoice)).value();
    const auto chat_template = std::move(text::ChatTemplate::load(kTinyVoice)).value();
    shared_->chats = *text::tokenize_chats(kGolden / "tiny-voice/calibration_texts.jsonl", chat_template, tokenizer);
    checkpoint::LoadedModel model = load(kTinyVoice);
    ThreadPool pool(2);
    Context cx(pool);
    shared_->calibration = *quantize::calibrate(cx, model.weights, shared_->chats, {});
    for (const auto& [name, value] : shared_->golden["input_amax"].items()) {
      shared_->input_amax[name] = value.get<float>();
    }
  }
  static void TearDownTestSuite() { delete shared_; }

  gate::Divergence divergence(Scales scales, bool activations) {
    const checkpoint::LoadedModel reference = load(kTinyVoice);
    checkpoint::LoadedModel quantized = load(kTinyVoice);
    quantize_in_place(cx_, quantized.weights, scales, activations ? &shared_->input_amax : nullptr);
    return *gate::measure_divergence(cx_, reference.weights, quantized.weights, shared_->chats, {});
  }
  // The standard error of the means is 3 % of them; 2 % and 5 % are what one rounding more or less may move.
  void expect_like(const char* variant, const gate::Divergence& got, double kl_share, double top1) {
    const Json& want = shared_->golden[variant]["calibration_texts"];
    EXPECT_EQ(got.tokens, 24377);
    EXPECT_NEAR(got.mean_kl, want["mean_kl"].get<double>(), kl_share * want["mean_kl"].get<double>());
    EXPECT_NEAR(got.top1, want["top1"].get<double>(), top1);
    RecordProperty("mean_kl", fmt::format("{:.6f}", got.mean_kl));
  }

  struct Shared {
    Json golden;
    std::vector<std::vector<int32_t>> chats;
    quantize::Calibration calibration;        // by our own forward
    std::map<std::string, float> input_amax;  // the golden's
  };
  static Shared* shared_;
};
TinyVoiceQuantized::Shared* TinyVoiceQuantized::shared_ = nullptr;

TEST_F(TinyVoiceQuantized, InputAmaxOfEveryLinear) {
  EXPECT_EQ(shared_->calibration.tokens, 24377);
  EXPECT_EQ(shared_->input_amax.size(), 51u);
  for (const auto& [name, want] : shared_->input_amax) {
    ASSERT_TRUE(shared_->calibration.input_amax.contains(name)) << name;
    EXPECT_NEAR(shared_->calibration.input_amax.at(name), want, 1e-3 * want) << name;
  }
}

TEST_F(TinyVoiceQuantized, UntiedW4A16) {
  expect_like("max_untied_w4a16", divergence(Scales::untied, false), .02, .003);
}
TEST_F(TinyVoiceQuantized, TiedW4A16) {
  expect_like("max_tied_w4a16", divergence(Scales::tied, false), .02, .003);
}
TEST_F(TinyVoiceQuantized, UntiedW4A4) {
  expect_like("max_untied_w4a4", divergence(Scales::untied, true), .05, .005);
}
TEST_F(TinyVoiceQuantized, TiedW4A4) {
  expect_like("max_tied_w4a4", divergence(Scales::tied, true), .05, .005);
}

}  // namespace
}  // namespace nibble::test

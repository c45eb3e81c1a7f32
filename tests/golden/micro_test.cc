// The two random micro models against torch: hidden states, logits and loss in f32 and under NVFP4 fake quantization.
#include <gtest/gtest.h>

#include <cmath>

#include "model/forward.h"
#include "ops/loss/kl.h"
#include "tests/support/golden.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

struct Mode {
  const char* name;
  bool quantized;
  Scales scales;
  bool activations;
  double logits, loss;  // what must be reached: max abs difference
};

// Required in f32 by the specification of the goldens. The golden multiplies decoded values where nibble multiplies
// codes and scales and applies the tensor scale to the sum: equal up to f32 rounding.
const Mode kModes[] = {
    {"f32", false, Scales::untied, false, 5e-4, 5e-6},
    {"w4a16", true, Scales::untied, false, 5e-4, 1e-5},
    {"w4a16_tied", true, Scales::tied, false, 5e-4, 1e-5},
    {"w4a4_tied", true, Scales::tied, true, 1e-4, 5e-6},
};

class Micro : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  ThreadPool pool_{2};
  Context cx_{pool_};
};

TEST_P(Micro, HiddenStatesLogitsAndLoss) {
  const auto [folder, mode_index] = GetParam();
  const Mode& mode = kModes[mode_index];
  checkpoint::LoadedModel model = load(kGolden / folder);
  const Golden golden(kGolden / folder / fmt::format("golden.{}.safetensors", mode.name));
  if (mode.quantized) {
    std::map<std::string, float> amax;
    golden.for_each_input_amax([&](const std::string& name, float value) { amax[name] = value; });
    quantize_in_place(cx_, model.weights, mode.scales, mode.activations ? &amax : nullptr);
  }

  const auto ids = golden.ids("input_ids"), labels = golden.ids("labels");
  const model::Config& c = model.weights.config;
  const int64_t B = 2, T = 75;
  double loss = 0;
  int64_t active = 0;
  for (int64_t b = 0; b < B; ++b) {
    model::State state(c, T, DType::f32);
    OwnedTensor hidden(DType::f32, {T, c.hidden}), logits(DType::f32, {T, c.vocab});
    const auto row_of = [&](const Tensor& all) {  // [2,75,N] -> the rows of sequence b
      const int64_t N = all.dim(2);
      return all.reshape({B * T, N}).rows(b * T, (b + 1) * T);
    };
    model::Tap tap;
    tap.block_output = [&](int layer, const Tensor& h) {
      if (layer + 1 == c.layers) return;  // hidden.L is after the final norm
      const Tensor want = row_of(golden[fmt::format("hidden.{}", layer + 1)]);
      EXPECT_LE(max_abs_difference(h.f32_span(), want.f32_span()), mode.logits) << "after layer " << layer;
    };
    const auto sequence = ids.subspan(static_cast<size_t>(b * T), static_cast<size_t>(T));
    ASSERT_TRUE(model::forward(cx_, model.weights, sequence, state, hidden.view, &tap).ok());
    EXPECT_LE(max_abs_difference(hidden.view.f32_span(), row_of(golden[fmt::format("hidden.{}", c.layers)]).f32_span()),
              mode.logits * 4);  // the final norm divides by an rms of about 1/4
    model::head(cx_, model.weights, hidden.view, logits.view);
    const double worst = max_abs_difference(logits.view.f32_span(), row_of(golden["logits"]).f32_span());
    EXPECT_LE(worst, mode.logits);
    RecordProperty(fmt::format("logits_{}", b), fmt::format("{:.2e}", worst));

    for (int64_t t = 0; t + 1 < T; ++t) {
      const int32_t label = labels[static_cast<size_t>(b * T + t + 1)];
      if (label == -100) continue;
      double log_prob = 0;
      ops::label_log_prob(cx_, logits.view.rows(t, t + 1), {&label, 1}, {&log_prob, 1});
      loss -= log_prob;
      ++active;
    }
  }
  EXPECT_NEAR(loss / static_cast<double>(active), *golden["loss"].f32(), mode.loss);
}

INSTANTIATE_TEST_SUITE_P(AllModes, Micro,
                         testing::Combine(testing::Values("micro", "micro_tied"), testing::Range(0, 4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" + kModes[std::get<1>(info.param)].name;
                         });

}  // namespace
}  // namespace nibble::test

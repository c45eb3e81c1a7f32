#include "tests/support/models.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/forward.h"
#include "ops/quant/nvfp4.h"

namespace nibble::test {
namespace {

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view end) { return name.ends_with(end); });
}

// The fused group of a module: its name with the member's own part replaced, or the name itself.
std::string group_of(const std::string& name) {
  const std::string parent = name.substr(0, name.rfind('.') + 1);
  if (ends_with_any(name, {"q_proj", "k_proj", "v_proj"})) return parent + "qkv";
  if (ends_with_any(name, {"gate_proj", "up_proj"})) return parent + "gate_up";
  if (ends_with_any(name, {"in_proj_qkv", "in_proj_z"})) return parent + "qkvz";
  return name;
}

bool quantizable(std::string_view name) {
  return ends_with_any(name, {".q_proj", ".k_proj", ".v_proj", ".o_proj", ".gate_proj", ".up_proj", ".down_proj",
                              ".in_proj_qkv", ".in_proj_z", ".out_proj"});
}

}  // namespace

checkpoint::LoadedModel load(const Path& dir) {
  auto model = checkpoint::load_checkpoint(dir, {});
  EXPECT_TRUE(model.ok()) << model.status().text();
  return std::move(model).value();
}

void quantize_in_place(Context& cx, model::Weights& weights, Scales scales,
                       const std::map<std::string, float>* input_amax) {
  std::map<std::string, float> weight_amax, group_input_amax;
  const auto key = [&](std::string_view name) {
    return scales == Scales::tied ? group_of(std::string(name)) : std::string(name);
  };
  weights.for_each_linear([&](std::string_view name, ops::Linear& w) {
    if (!quantizable(name)) return;
    float& amax = weight_amax[key(name)];
    amax = std::max(amax, ops::tensor_amax(cx, w.weight).amax);
    if (input_amax != nullptr) {
      float& input = group_input_amax[key(name)];
      input = std::max(input, input_amax->at(std::string(name)));
    }
  });
  weights.for_each_linear([&](std::string_view name, ops::Linear& w) {
    if (!quantizable(name)) return;
    const float amax = weight_amax.at(key(name));
    const Shape codes_shape{w.out, w.in / 2}, scales_shape{w.out, w.in / 16};
    const Tensor codes = weights.own(Buffer::for_tensor(DType::u8, codes_shape)).tensor(DType::u8, codes_shape);
    const Tensor block =
        weights.own(Buffer::for_tensor(DType::f8e4m3, scales_shape)).tensor(DType::f8e4m3, scales_shape);
    ops::nvfp4_quantize(cx, w.weight, amax, codes, block);
    w.format = ops::WeightFormat::nvfp4;
    w.weight = codes;
    w.block_scale = block;
    w.tensor_scale = nvfp4_tensor_scale(amax).ws2;
    if (input_amax == nullptr) return;
    w.inputs = ops::InputRounding::nvfp4;
    w.input_scale = div_rn(group_input_amax.at(key(name)), kNvfp4Range);
  });
}

OwnedTensor logits_of(Context& cx, const model::Weights& weights, std::span<const int32_t> ids) {
  const auto T = static_cast<int64_t>(ids.size());
  OwnedTensor hidden(DType::f32, {T, weights.config.hidden}), logits(DType::f32, {T, weights.config.vocab});
  model::State state(weights.config, T, DType::f32);
  EXPECT_TRUE(model::forward(cx, weights, ids, state, hidden.view).ok());
  model::head(cx, weights, hidden.view, logits.view);
  return logits;
}

double max_abs_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  return worst;
}

}  // namespace nibble::test

// Exports of part of the linears and of more than one format, against ModelOpt's.
#include <gtest/gtest.h>

#include <cstdlib>

#include "quantize/test_modelopt.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

using testing_modelopt::golden_json;
using testing_modelopt::kGolden;
using testing_modelopt::kTinyVoice;
using testing_modelopt::ModelOptGolden;
using testing_modelopt::read_json;
using testing_modelopt::with_input_amax;

using MixedGolden = ModelOptGolden;

QuantizeOptions with_rules(std::vector<Rule> rules) {
  QuantizeOptions options = with_input_amax("max_w4a4");
  options.recipe.rules = std::move(rules);
  return options;
}

TEST_F(MixedGolden, MlpOnlyIsModelOptsExportByteForByte) {
  const SafetensorsFolder folder = quantize(kTinyVoice, with_rules({{"mlp", Format::nvfp4, Inputs::a4, 0}}));
  expect_folder(folder, golden_json("mlp_only/hashes.json"));
  EXPECT_EQ(read_json(folder_ / "hf_quant_config.json"), golden_json("mlp_only/hf_quant_config.json"));
  EXPECT_EQ(read_json(folder_ / "config.json")["quantization_config"],
            golden_json("mlp_only/quantization_config.json"));
}

TEST_F(MixedGolden, Fp8AttentionHasModelOptsScales) {
  const SafetensorsFolder folder = quantize(kTinyVoice, with_rules({{"self_attn", Format::fp8, Inputs::a8, 0}}));
  EXPECT_EQ(read_json(folder_ / "hf_quant_config.json"), golden_json("fp8_attention/hf_quant_config.json"));
  EXPECT_EQ(read_json(folder_ / "config.json")["quantization_config"],
            golden_json("fp8_attention/quantization_config.json"));
  const Json hashes = golden_json("fp8_attention/hashes.json");
  EXPECT_EQ(hashes["linears"].size(), quantized_modules().size());
  for (const auto& [module, linear] : hashes["linears"].items()) {
    EXPECT_EQ(scalar_hex(folder, module + ".weight_scale"), linear["scale"]) << module;
    EXPECT_EQ(scalar_hex(folder, module + ".input_scale"), linear["input_scale"]) << module;
    EXPECT_EQ(Json(folder.find(module + ".weight")->info->shape), linear["shape"]) << module;
  }
}

// ModelOpt divides in BF16: its codes are e4m3(bf16(w / scale)).
TEST_F(MixedGolden, DifferenceFp8CodesAreOfTheUnroundedQuotient) {
  const SafetensorsFolder ours = quantize(kTinyVoice, with_rules({{"self_attn", Format::fp8, Inputs::a8, 0}}));
  const Result<SafetensorsFolder> theirs = SafetensorsFolder::open(Path(kGolden) / "modelopt/fp8_attention");
  const Result<SafetensorsFolder> source = SafetensorsFolder::open(kTinyVoice);
  ASSERT_TRUE(theirs.ok() && source.ok());
  const std::string module = "model.layers.3.self_attn.k_proj";
  const auto a = bytes(ours, module + ".weight"), b = bytes(*theirs, module + ".weight");
  const auto w = bytes(*source, module + ".weight");
  ASSERT_EQ(a.size(), b.size());
  float scale;
  std::memcpy(&scale, bytes(*theirs, module + ".weight_scale").data(), sizeof scale);
  size_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    uint16_t word;
    std::memcpy(&word, w.data() + 2 * i, sizeof word);
    const uint8_t emulated = f32_to_e4m3(round_to_bf16(div_rn(bf16_to_f32(word), scale)));
    const bool zeros = (emulated & 0x7F) == 0 && (static_cast<uint8_t>(b[i]) & 0x7F) == 0;
    EXPECT_TRUE(zeros || emulated == static_cast<uint8_t>(b[i])) << i;
    different += a[i] != b[i] ? 1 : 0;
    EXPECT_LE(std::abs(static_cast<int>(a[i]) - static_cast<int>(b[i])), zeros ? 128 : 1) << i;
  }
  EXPECT_LE(different, a.size() * 3 / 100);
  RecordProperty("different", std::to_string(different));
}

TEST_F(MixedGolden, NvidiasRecipe) {
  QuantizeOptions options = with_input_amax("max_w4a4");
  options.recipe = *find_recipe("nvidia");
  const SafetensorsFolder folder = quantize(kTinyVoice, options);
  // Excludes stand there, too: the only difference.
  nlohmann::json hf = nlohmann::json::parse(read_json(folder_ / "hf_quant_config.json").dump());
  EXPECT_TRUE(hf["quantization"].erase("exclude_modules"));
  EXPECT_EQ(hf, nlohmann::json::parse(golden_json("recipe_qwen35/hf_quant_config.json").dump()));
  nlohmann::json config = nlohmann::json::parse(read_json(folder_ / "config.json")["quantization_config"].dump());
  config["ignore"] = nlohmann::json::array();
  EXPECT_EQ(config, nlohmann::json::parse(golden_json("recipe_qwen35/quantization_config.json").dump()));
  const Json hashes = golden_json("recipe_qwen35/hashes.json");
  for (const auto& [module, linear] : hashes["linears"].items()) {
    if (linear["dtype"] == "uint8") {
      EXPECT_EQ(scalar_hex(folder, module + ".weight_scale_2"), linear["weight_scale_2"]) << module;
    } else {
      EXPECT_EQ(scalar_hex(folder, module + ".weight_scale"), linear["scale"]) << module;
      EXPECT_EQ(scalar_hex(folder, module + ".input_scale"), linear["input_scale"]) << module;
    }
  }
  float head_scale;
  std::memcpy(&head_scale, bytes(folder, "lm_head.weight_scale_2").data(), sizeof head_scale);
  EXPECT_EQ(head_scale, 7.883707439759746e-05f);
}

}  // namespace
}  // namespace nibble::quantize

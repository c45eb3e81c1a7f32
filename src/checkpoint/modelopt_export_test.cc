#include "checkpoint/modelopt_export.h"

#include <gtest/gtest.h>

#include "checkpoint/fused_linears.h"
#include "checkpoint/quantization.h"
#include "checkpoint/test_folder.h"

namespace nibble::checkpoint {
namespace {

Json golden(const std::string& name) {
  return testing::read_json_file(Path(NIBBLE_SOURCE_DIR "/tests/golden/modelopt") / name);
}

// What a golden's folder holds: quantized as its hf_quant_config says, and everything else of tiny-voice.
QuantizedModules modules_of(const std::string& folder) {
  const Json hf = golden(folder + "/hf_quant_config.json")["quantization"];
  const Json hashes = golden(folder + "/hashes.json");
  const auto has_input = [&](const std::string& module) { return hashes["linears"][module].contains("input_scale"); };
  QuantizedModules modules;
  modules.fp8_kv = hf["kv_cache_quant_algo"] == "FP8";
  for (const auto& [module, linear] : hashes["linears"].items()) {
    const bool four_bits = linear["dtype"] == "uint8";
    const Inputs rounded = four_bits ? Inputs::a4 : Inputs::a8;
    modules.quantized.push_back(
        {module, four_bits ? Format::nvfp4 : Format::fp8, has_input(module) ? rounded : Inputs::a16, false});
  }
  for (const auto& [name, described] : hashes["other_tensors"].items()) {
    const bool quantized_head = name.starts_with("lm_head.") && described[0] == "uint8";
    if (quantized_head) modules.quantized.push_back({"lm_head", Format::nvfp4, Inputs::a16, false});
    if (!quantized_head && name.ends_with(kWeightSuffix) && described[1].size() >= 2) {
      modules.unquantized.push_back(name.substr(0, name.size() - kWeightSuffix.size()));
    }
  }
  return modules;
}

// Objects without the order of their keys.
nlohmann::json unordered(const Json& json) {
  return nlohmann::json::parse(json.dump());
}

TEST(ModelOptExport, ConfigFilesAreModelOpts) {
  for (const std::string folder : {"w4a16_max", "mlp_only", "fp8_attention", "max_w4a4"}) {
    const QuantizedModules modules = modules_of(folder);
    EXPECT_TRUE(modules.uniform());
    EXPECT_EQ(hf_quant_config(modules), golden(folder + "/hf_quant_config.json")) << folder;
    EXPECT_EQ(quantization_config(modules), folder == "max_w4a4"
                                                ? golden(folder + "/config.json")["quantization_config"]
                                                : golden(folder + "/quantization_config.json"))
        << folder;
  }
}

// Where formats are mixed, ModelOpt names the quantized modules alone; servers read excludes, too, so ours has both.
TEST(ModelOptExport, DifferenceMixedConfigFilesNameWhatStays) {
  for (const std::string folder : {"auto_gradient", "recipe_qwen35"}) {
    const QuantizedModules modules = modules_of(folder);
    EXPECT_FALSE(modules.uniform());
    nlohmann::json hf = unordered(hf_quant_config(modules)), config = unordered(quantization_config(modules));
    const nlohmann::json excluded = hf["quantization"]["exclude_modules"];
    EXPECT_EQ(excluded.size(),
              folder == "auto_gradient" ? 20u : 19u);  // gates and convolutions of six layers, embedding
    EXPECT_EQ(config["ignore"], excluded);
    hf["quantization"].erase("exclude_modules");
    config["ignore"] = nlohmann::json::array();
    EXPECT_EQ(hf, unordered(golden(folder + "/hf_quant_config.json"))) << folder;
    EXPECT_EQ(config, unordered(golden(folder + "/quantization_config.json"))) << folder;
  }
}

TEST(ModelOptExport, AWordForEachForm) {
  EXPECT_EQ(quant_algo({"m", Format::nvfp4, Inputs::a4, false}), "NVFP4");
  EXPECT_EQ(quant_algo({"m", Format::nvfp4, Inputs::a16, false}), "W4A16_NVFP4");
  EXPECT_EQ(quant_algo({"m", Format::nvfp4, Inputs::a16, true}), "NVFP4_SVD");
  EXPECT_EQ(quant_algo({"m", Format::fp8, Inputs::a8, false}), "FP8");
  EXPECT_EQ(quant_algo({"m", Format::fp8_channel, Inputs::a16, false}), "FP8_PER_CHANNEL_PER_TOKEN");
}

TEST(ModelOptExport, TheReaderUnderstandsBothFiles) {
  for (Inputs inputs : {Inputs::a16, Inputs::a4}) {
    QuantizedModules modules;
    modules.quantized = {{"model.layers.0.mlp.up_proj", Format::nvfp4, inputs, false}};
    modules.unquantized = {"lm_head", "mtp.fc"};
    const Json root = {{"quantization_config", quantization_config(modules)}};
    const Result<Quantization> read = read_quantization(root, hf_quant_config(modules));
    ASSERT_TRUE(read.ok()) << read.status().text();
    EXPECT_EQ(read->rounds_inputs(), inputs == Inputs::a4);
    EXPECT_EQ(read->exclude, (std::vector<std::string>{"lm_head", "mtp*"}));
    EXPECT_EQ(read->producer, "modelopt 0.47.0");
  }
}

TEST(ModelOptExport, ConfigTextKeepsOrderAndEndsInANewline) {
  EXPECT_EQ(config_text({{"b", 1e-6}, {"a", {1, 2}}}), "{\n  \"b\": 1e-06,\n  \"a\": [\n    1,\n    2\n  ]\n}\n");
}

TEST(FusedLinears, NamesOfTheParts) {
  EXPECT_EQ(fused_module("model.layers.3.self_attn.k_proj"), "model.layers.3.self_attn.qkv_proj");
  EXPECT_EQ(fused_module("mtp.layers.0.mlp.up_proj"), "mtp.layers.0.mlp.gate_up_proj");
  EXPECT_EQ(fused_module("model.layers.0.linear_attn.in_proj_z"), "model.layers.0.linear_attn.in_proj_qkvz");
  EXPECT_EQ(fused_module("model.layers.0.linear_attn.in_proj_a"), "model.layers.0.linear_attn.in_proj_ba");
  EXPECT_EQ(fused_module("q_proj"), "qkv_proj");
  for (const char* alone : {"lm_head", "model.layers.0.mlp.down_proj", "a.xq_proj", "a.q_proj.b", ""}) {
    EXPECT_EQ(fused_module(alone), alone);
  }
}

}  // namespace
}  // namespace nibble::checkpoint

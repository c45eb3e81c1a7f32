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

TEST(ModelOptExport, ConfigFilesAreModelOpts) {
  const Json w4a4 = golden("max_w4a4/hf_quant_config.json"), w4a16 = golden("w4a16_max/hf_quant_config.json");
  const ModelOptConfig both{true, w4a4["quantization"]["exclude_modules"].get<std::vector<std::string>>()};
  EXPECT_EQ(hf_quant_config(both), w4a4);
  EXPECT_EQ(quantization_config(both), golden("max_w4a4/config.json")["quantization_config"]);
  const ModelOptConfig weights{false, w4a16["quantization"]["exclude_modules"].get<std::vector<std::string>>()};
  EXPECT_EQ(hf_quant_config(weights), w4a16);
  EXPECT_EQ(quantization_config(weights), golden("w4a16_max/quantization_config.json"));
}

TEST(ModelOptExport, TheReaderUnderstandsBothFiles) {
  for (bool quantized_inputs : {false, true}) {
    const ModelOptConfig config{quantized_inputs, {"lm_head", "mtp*"}};
    const Json root = {{"quantization_config", quantization_config(config)}};
    const Result<Quantization> read = read_quantization(root, hf_quant_config(config));
    ASSERT_TRUE(read.ok()) << read.status().text();
    EXPECT_EQ(read->rounds_inputs(), quantized_inputs);
    EXPECT_EQ(read->exclude, config.exclude_modules);
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

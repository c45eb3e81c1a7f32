#include "checkpoint/compressed_tensors_export.h"

#include <gtest/gtest.h>

#include "checkpoint/test_folder.h"

namespace nibble::checkpoint {
namespace {

const std::string kLayer = "model.layers.0.";

// What llm-compressor wrote ("lc_…"), and hand-written folders that the loader opened with equal results ("hand_…").
nlohmann::json golden(const std::string& folder) {
  const Json all = testing::read_json_file(Path(NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors") / "configs.json");
  return nlohmann::json::parse(all[folder].dump());
}

nlohmann::json config_of(const QuantizedModules& modules) {
  return nlohmann::json::parse(compressed_tensors_config(modules).dump());
}

QuantizedModules four_bits(Inputs inputs) {
  QuantizedModules modules;
  modules.quantized = {{kLayer + "mlp.up_proj", Format::nvfp4, inputs, false},
                       {kLayer + "mlp.gate_proj", Format::nvfp4, inputs, false}};
  modules.unquantized = {"lm_head", kLayer + "linear_attn.in_proj_a", "model.visual.blocks.0.attn.qkv", "mtp.fc"};
  return modules;
}

// Names are ours, everything that a loader reads beside them is the golden's.
void expect_equal_but_names(nlohmann::json ours, nlohmann::json theirs) {
  for (nlohmann::json* config : {&ours, &theirs}) {
    config->erase("ignore");
    for (const char* unread : {"version", "sparsity_config", "transform_config"}) config->erase(unread);
    for (auto& group : (*config)["config_groups"]) {
      group.erase("targets");
      for (const char* operand : {"weights", "input_activations"}) {
        if (group[operand].is_object()) group[operand].erase("zp_dtype");  // read by nobody; both spellings are around
      }
    }
  }
  EXPECT_EQ(ours, theirs);
}

TEST(CompressedTensorsExport, UniformConfigsAreTheGoldens) {
  for (const auto& [folder, inputs] : {std::pair("hand_w4a16", Inputs::a16), std::pair("lc_rtn_w4a16", Inputs::a16),
                                       std::pair("hand_w4a4", Inputs::a4), std::pair("lc_rtn_w4a4", Inputs::a4)}) {
    const nlohmann::json ours = config_of(four_bits(inputs));
    expect_equal_but_names(ours, golden(folder));
    EXPECT_EQ(ours["config_groups"]["group_0"]["targets"], nlohmann::json({"Linear"}));
    EXPECT_EQ(ours["ignore"],
              nlohmann::json({"lm_head", kLayer + "linear_attn.in_proj_a", "re:.*visual.*", "re:^mtp.*"}));
  }
}

TEST(CompressedTensorsExport, MixedConfigsAreTheGoldens) {
  QuantizedModules modules = four_bits(Inputs::a16);
  modules.quantized.insert(modules.quantized.begin() + 1,
                           {kLayer + "self_attn.o_proj", Format::fp8, Inputs::a8, false});
  const nlohmann::json ours = config_of(modules);
  expect_equal_but_names(ours, golden("lc_mixed_fp8_nvfp4"));
  EXPECT_EQ(ours["format"], "mixed-precision");
  EXPECT_EQ(ours["config_groups"]["group_0"]["targets"], nlohmann::json({kLayer + "self_attn.o_proj"}));
  EXPECT_EQ(ours["config_groups"]["group_1"]["targets"],
            nlohmann::json({kLayer + "mlp.gate_proj", kLayer + "mlp.up_proj"}));
  // The hand-written ones leave keys out that are null or a default.
  for (const auto& [folder, inputs] :
       {std::pair("hand_mixed", Inputs::a8), std::pair("hand_mixed_w8a16", Inputs::a16)}) {
    modules.quantized[1].inputs = inputs;
    const nlohmann::json groups = config_of(modules)["config_groups"], theirs = golden(folder)["config_groups"];
    for (const char* group : {"group_0", "group_1"}) {
      EXPECT_EQ(groups[group]["format"], theirs[group]["format"]);
      for (const char* operand : {"weights", "input_activations"}) {
        EXPECT_EQ(groups[group][operand].is_null(), theirs[group][operand].is_null());
        if (theirs[group][operand].is_null()) continue;
        for (const auto& [key, value] : theirs[group][operand].items()) {
          EXPECT_EQ(groups[group][operand][key], value) << folder << " " << group << " " << operand << " " << key;
        }
      }
    }
  }
}

TEST(CompressedTensorsExport, Fp8AloneAndByChannel) {
  QuantizedModules modules;
  modules.quantized = {{"a", Format::fp8_channel, Inputs::a16, false}};
  modules.unquantized = {"lm_head"};
  nlohmann::json config = config_of(modules);
  EXPECT_EQ(config["format"], "float-quantized");
  EXPECT_EQ(config["config_groups"]["group_0"]["weights"]["strategy"], "channel");
  modules.quantized.push_back({"b", Format::fp8, Inputs::a8, false});
  config = config_of(modules);
  EXPECT_EQ(config["format"], "float-quantized");
  EXPECT_EQ(config["config_groups"].size(), 2u);
}

// The class of a server's head is not "Linear".
TEST(CompressedTensorsExport, AQuantizedHeadIsNamed) {
  QuantizedModules modules = four_bits(Inputs::a16);
  modules.quantized.push_back({"lm_head", Format::nvfp4, Inputs::a16, false});
  modules.unquantized.erase(modules.unquantized.begin());
  EXPECT_EQ(config_of(modules)["config_groups"]["group_0"]["targets"],
            nlohmann::json({"lm_head", kLayer + "mlp.gate_proj", kLayer + "mlp.up_proj"}));
}

}  // namespace
}  // namespace nibble::checkpoint

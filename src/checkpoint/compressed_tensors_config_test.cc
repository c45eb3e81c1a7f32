#include "checkpoint/compressed_tensors_config.h"

#include <gtest/gtest.h>

#include "checkpoint/quantization.h"
#include "checkpoint/test_folder.h"

namespace nibble::checkpoint {
namespace {

const Json& golden_configs() {
  static const Json configs =
      testing::read_json_file(Path(NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors/configs.json"));
  return configs;
}

Result<Quantization> read(const Json& section) {
  return read_quantization({{"quantization_config", section}}, std::nullopt);
}

StoredFormat format_of(const Quantization& q, std::string_view module) {
  Result<StoredFormat> format = q.format_of(module);
  EXPECT_TRUE(format.ok()) << format.status().text();
  return *format;
}

// Every config that llm-compressor wrote, those that a loader accepted, and the converter's.
TEST(CompressedTensorsConfig, ReadsTheGoldens) {
  for (const auto& [name, section] : golden_configs().items()) {
    Result<Quantization> q = read(section);
    ASSERT_TRUE(q.ok()) << name << ": " << q.status().text();
    EXPECT_EQ(q->layout, Layout::compressed_tensors);
    const bool mixed = section["format"] == "mixed-precision",
               a4 = name.ends_with("w4a4") || name == "conv_w4a4_explicit";
    const StoredFormat mlp = format_of(*q, "model.layers.0.mlp.gate_proj");
    EXPECT_EQ(mlp.format, Format::nvfp4) << name;
    EXPECT_EQ(mlp.inputs, a4 ? Inputs::a4 : Inputs::a16) << name;
    for (const char* module : {"model.layers.3.self_attn.k_proj", "model.layers.0.linear_attn.in_proj_qkv"}) {
      const StoredFormat other = format_of(*q, module);
      EXPECT_EQ(other.format, mixed ? Format::fp8 : Format::nvfp4) << name << " " << module;
      EXPECT_EQ(other.inputs, !mixed ? mlp.inputs : name == "hand_mixed_w8a16" ? Inputs::a16 : Inputs::a8) << name;
    }
    for (const char* module :
         {"lm_head", "model.layers.0.linear_attn.in_proj_a", "model.layers.1.linear_attn.in_proj_b"}) {
      EXPECT_FALSE(format_of(*q, module).quantized()) << name << " " << module;
    }
  }
}

Json plain(const char* name = "lc_rtn_w4a4") {
  return golden_configs()[name];
}

TEST(CompressedTensorsConfig, TheMostExactTargetDecides) {
  Json config = plain("hand_mixed");
  config["config_groups"]["group_0"]["targets"] = {"re:.*mlp", "model.layers.0.mlp.up_proj"};
  config["config_groups"]["group_1"]["targets"] = {"Linear", "model.layers.0.mlp.gate_proj"};
  config["ignore"] = {"re:.*down", "lm_head"};
  Result<Quantization> q = read(config);
  ASSERT_TRUE(q.ok()) << q.status().text();
  EXPECT_EQ(format_of(*q, "model.layers.0.mlp.up_proj").format, Format::fp8);
  EXPECT_EQ(format_of(*q, "model.layers.0.mlp.gate_proj").format, Format::nvfp4);
  EXPECT_EQ(format_of(*q, "model.layers.1.mlp.gate_proj").format, Format::fp8);  // from the start, not to the end
  EXPECT_EQ(format_of(*q, "model.layers.1.self_attn.q_proj").format, Format::nvfp4);
  EXPECT_FALSE(format_of(*q, "model.layers.1.mlp.down_proj").quantized());
  // Names are those of the files, and there are no wildcards.
  EXPECT_EQ(format_of(*q, "model.language_model.layers.0.mlp.up_proj").format, Format::fp8);
  config["config_groups"]["group_0"]["targets"] = {"model.layers.*.mlp.up_proj"};
  config["config_groups"]["group_1"]["targets"] = {"e:.*"};
  EXPECT_FALSE(format_of(*read(config), "model.layers.0.mlp.up_proj").quantized());
}

TEST(CompressedTensorsConfig, ReadsPresetsAndDynamicFp8) {
  const Json base = {{"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}};
  const struct {
    const char* preset;
    Format format;
    Inputs inputs;
  } presets[] = {{"NVFP4A16", Format::nvfp4, Inputs::a16},
                 {"NVFP4", Format::nvfp4, Inputs::a4},
                 {"FP8", Format::fp8, Inputs::a8},
                 {"FP8_DYNAMIC", Format::fp8_channel, Inputs::a16}};
  for (const auto& c : presets) {
    Json config = base;
    config["config_groups"] = {{c.preset, {"Linear"}}};
    Result<Quantization> q = read(config);
    ASSERT_TRUE(q.ok()) << q.status().text();
    EXPECT_EQ(format_of(*q, "lm_head").format, c.format) << c.preset;
    EXPECT_EQ(format_of(*q, "lm_head").inputs, c.inputs) << c.preset;
  }
  Json dynamic = plain("hand_mixed");
  dynamic["config_groups"]["group_0"]["weights"]["strategy"] = "channel";
  dynamic["config_groups"]["group_0"]["input_activations"] = {
      {"num_bits", 8}, {"type", "float"}, {"strategy", "token"}, {"dynamic", true}};
  const StoredFormat format = format_of(*read(dynamic), "model.layers.3.self_attn.q_proj");
  EXPECT_EQ(format.format, Format::fp8_channel);
  EXPECT_EQ(format.inputs, Inputs::a16);
}

// What compressed-tensors takes and computes wrongly, or refuses.
TEST(CompressedTensorsConfig, RefusesWhatWouldGoWrong) {
  const struct {
    const char* message;
    Code code;
    void (*change)(Json& config, Json& group);
  } cases[] = {
      {"quantization_status: expected compressed, got none", Code::corrupt,
       [](Json& c, Json&) { c.erase("quantization_status"); }},
      {"quantization_status: expected compressed, got frozen", Code::corrupt,
       [](Json& c, Json&) { c["quantization_status"] = "frozen"; }},
      {"config_groups: expected an object of groups, got none", Code::corrupt,
       [](Json& c, Json&) { c.erase("config_groups"); }},
      {"config_groups: expected objects, got number", Code::corrupt, [](Json&, Json& g) { g = 3; }},
      {"targets: expected a list of names, got none", Code::corrupt, [](Json&, Json& g) { g.erase("targets"); }},
      {"targets: expected a list of names, got number", Code::corrupt, [](Json&, Json& g) { g["targets"] = {1}; }},
      {"targets: expected a regular expression", Code::corrupt, [](Json&, Json& g) { g["targets"] = {"re:(a"}; }},
      {"ignore: expected a list of names, got string", Code::corrupt, [](Json& c, Json&) { c["ignore"] = "lm_head"; }},
      {"weights: expected an object, got none", Code::corrupt, [](Json&, Json& g) { g["weights"] = nullptr; }},
      {"strategy: expected \"tensor_group\", got none (config.json, group_0, weights)", Code::corrupt,
       [](Json&, Json& g) { g["weights"].erase("strategy"); }},
      {"group_size: expected 16, got none", Code::corrupt, [](Json&, Json& g) { g["weights"].erase("group_size"); }},
      {"group_size: expected 16, got 32", Code::corrupt, [](Json&, Json& g) { g["weights"]["group_size"] = 32; }},
      {"num_bits: expected 4, got 8", Code::corrupt, [](Json&, Json& g) { g["weights"]["num_bits"] = 8; }},
      {"num_bits: expected 4, got none (config.json, group_0, input_activations)", Code::corrupt,
       [](Json&, Json& g) { g["input_activations"].erase("num_bits"); }},
      {"type: expected \"float\", got none", Code::corrupt,
       [](Json&, Json& g) { g["input_activations"].erase("type"); }},
      {"scale_dtype: expected", Code::corrupt,
       [](Json&, Json& g) { g["input_activations"]["scale_dtype"] = "torch.uint8"; }},
      {"dynamic: expected \"local\", got true", Code::corrupt,
       [](Json&, Json& g) { g["input_activations"]["dynamic"] = true; }},
      {"dynamic: expected \"local\", got false", Code::corrupt,
       [](Json&, Json& g) { g["input_activations"]["dynamic"] = false; }},
      {"dynamic: expected false, got true", Code::unsupported, [](Json&, Json& g) { g["weights"]["dynamic"] = true; }},
      {"actorder: expected null", Code::unsupported, [](Json&, Json& g) { g["weights"]["actorder"] = "group"; }},
      {"output_activations: expected null, got object", Code::unsupported,
       [](Json&, Json& g) { g["output_activations"] = g["weights"]; }},
      {"transform_config: expected none, got object", Code::unsupported,
       [](Json& c, Json&) {
         c["transform_config"] = {{"config_groups", {{"u", {}}}}};
       }},
      {"sparsity_config: expected none, got object", Code::unsupported,
       [](Json& c, Json&) {
         c["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
       }},
      {"format: expected nvfp4-pack-quantized, float-quantized or mixed-precision, got pack-quantized",
       Code::unsupported, [](Json& c, Json&) { c["format"] = "pack-quantized"; }},
      {"format: expected nvfp4-pack-quantized", Code::unsupported,
       [](Json&, Json& g) { g["format"] = "int-quantized"; }},
      {"strategy: expected tensor or channel, got tensor_group", Code::unsupported,
       [](Json&, Json& g) {
         g["format"] = "float-quantized";
         g["weights"]["num_bits"] = 8;
       }},
  };
  for (const auto& c : cases) {
    Json config = plain();
    c.change(config, config["config_groups"]["group_0"]);
    const Status status = read(config).status();
    EXPECT_EQ(status.code(), c.code) << c.message << ": " << status.text();
    EXPECT_NE(status.message().find(c.message), std::string::npos) << c.message << ": " << status.text();
  }
  Json unknown = plain();
  unknown["config_groups"] = {{"W4A16", {"Linear"}}};
  EXPECT_EQ(read(unknown).status().code(), Code::unsupported);
  // What changes nothing there changes nothing here.
  Json harmless = plain();
  harmless["format"] = nullptr;
  harmless["kv_cache_scheme"] = {{"num_bits", 8}};
  harmless["config_groups"]["group_0"].erase("format");
  harmless["config_groups"]["group_0"]["weights"].erase("observer");
  harmless["producer"] = "x";
  Result<Quantization> q = read(harmless);
  ASSERT_TRUE(q.ok()) << q.status().text();
  EXPECT_EQ(q->algo, "nvfp4-pack-quantized");
}

}  // namespace
}  // namespace nibble::checkpoint

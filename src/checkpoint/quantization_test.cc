#include "checkpoint/quantization.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "checkpoint/test_folder.h"

namespace nibble::checkpoint {
namespace {

const Path kGoldens = NIBBLE_SOURCE_DIR "/tests/golden/modelopt";

TEST(Quantization, ReadsWhatModelOptWrites) {
  const Json config = testing::read_json_file(kGoldens / "max_w4a4/config.json");
  const Json hf = testing::read_json_file(kGoldens / "max_w4a4/hf_quant_config.json");
  for (const auto& [json, extra] : {std::pair(config, std::optional<Json>(hf)),
                                    {config, std::nullopt},
                                    {Json::object(), std::optional<Json>(hf)}}) {
    Result<Quantization> q = read_quantization(json, extra);
    ASSERT_TRUE(q.ok()) << q.status().text();
    EXPECT_EQ(q->algo, "NVFP4");
    EXPECT_EQ(q->producer, "modelopt 0.47.0");
    EXPECT_TRUE(q->rounds_inputs());
    EXPECT_TRUE(q->excludes("lm_head"));
    EXPECT_TRUE(q->excludes("model.layers.0.linear_attn.in_proj_a"));
    EXPECT_TRUE(q->excludes("model.language_model.layers.0.linear_attn.in_proj_a"));
    EXPECT_FALSE(q->excludes("model.layers.0.linear_attn.in_proj_qkv"));
    EXPECT_FALSE(q->excludes("model.layers.0.mlp.up_proj"));
  }
  const Json weights_only = {
      {"quantization_config", testing::read_json_file(kGoldens / "w4a16_max/quantization_config.json")}};
  EXPECT_EQ(read_quantization(weights_only, std::nullopt)->algo, "W4A16_NVFP4");
  EXPECT_FALSE(read_quantization(weights_only, std::nullopt)->rounds_inputs());
}

TEST(Quantization, TheMapOfLayersIsTheTruth) {
  const Path folder = kGoldens / "recipe_qwen35";
  const Json hf = testing::read_json_file(folder / "hf_quant_config.json");
  Json config = {{"quantization_config", testing::read_json_file(folder / "quantization_config.json")}};
  // As in some published folders: the head is quantized and, beside that, excluded; names have the other prefix.
  config["quantization_config"]["ignore"] = {"lm_head*"};
  for (const auto& extra : {std::optional<Json>(hf), std::optional<Json>()}) {
    Result<Quantization> q = read_quantization(config, extra);
    ASSERT_TRUE(q.ok()) << q.status().text();
    EXPECT_EQ(q->algo, "MIXED_PRECISION");
    EXPECT_EQ(q->format_of("lm_head")->format, Format::nvfp4);
    EXPECT_EQ(q->format_of("lm_head")->inputs, Inputs::a16);
    EXPECT_EQ(q->format_of("model.language_model.layers.0.mlp.up_proj")->format, Format::nvfp4);
    EXPECT_EQ(q->format_of("model.layers.3.self_attn.q_proj")->format, Format::fp8);
    EXPECT_EQ(q->format_of("model.layers.3.self_attn.q_proj")->inputs, Inputs::a8);
    EXPECT_FALSE(q->format_of("model.layers.0.linear_attn.in_proj_a")->quantized());
  }
  Json other = hf;
  other["quantization"]["quantized_layers"].erase("lm_head");
  EXPECT_EQ(read_quantization(config, other).status().code(), Code::corrupt);
}

TEST(Quantization, ReadsUniformFp8AndSvd) {
  const auto read = [](const char* name) {
    const Json section = testing::read_json_file(kGoldens / name / "quantization_config.json");
    const Json hf = testing::read_json_file(kGoldens / name / "hf_quant_config.json");
    Result<Quantization> q = read_quantization({{"quantization_config", section}}, hf);
    EXPECT_TRUE(q.ok()) << q.status().text();
    return std::move(q).value();
  };
  const Quantization fp8 = read("fp8_attention");
  EXPECT_EQ(fp8.format_of("model.layers.3.self_attn.q_proj")->format, Format::fp8);
  EXPECT_EQ(fp8.format_of("model.layers.3.self_attn.q_proj")->inputs, Inputs::a8);
  EXPECT_FALSE(fp8.format_of("model.layers.3.mlp.up_proj")->quantized());
  const Quantization svd = read("svdquant");
  EXPECT_TRUE(svd.format_of("model.layers.3.mlp.up_proj")->low_rank);
  EXPECT_EQ(svd.format_of("model.layers.3.mlp.up_proj")->inputs, Inputs::a4);
  EXPECT_FALSE(svd.format_of("lm_head")->quantized());
}

TEST(Quantization, FullPrecisionIsNoQuantization) {
  EXPECT_FALSE(read_quantization(Json::object(), std::nullopt)->quantized());
  EXPECT_FALSE(read_quantization({{"quantization_config", nullptr}}, std::nullopt)->quantized());
  const Json none = {{"quantization", {{"quant_algo", nullptr}}}};
  EXPECT_FALSE(read_quantization(Json::object(), none)->quantized());
}

TEST(Quantization, PatternsMatchWholePartsOrByStar) {
  const struct {
    const char *pattern, *module;
    bool matches;
  } cases[] = {
      {"lm_head", "lm_head", true},
      {"lm_head*", "lm_head", true},
      {"mtp*", "mtp.layers.0.mlp.up_proj", true},
      {"mtp", "mtp.fc", true},
      {"mtp", "smtp.fc", false},
      {"model.layers.1", "model.layers.10.mlp.up_proj", false},
      {"model.layers.1", "model.layers.1.mlp.up_proj", true},
      {"*linear_attn.conv1d", "model.layers.0.linear_attn.conv1d", true},
      {"linear_attn.conv1d", "model.layers.0.linear_attn.conv1d", true},
      {"*.self_attn.*", "model.layers.3.self_attn.q_proj", true},
      {"*.self_attn.*", "model.layers.3.mlp.up_proj", false},
      {"*a*b*c*", "xxaxxbxxc", true},
      {"*a*b*c", "xxaxxbxxcx", false},
      {"*", "anything", true},
      {"", "anything", false},
      {"model.layers.0*", "model.layers.0.mlp.up_proj", true},
  };
  for (const auto& c : cases) EXPECT_EQ(matches_module(c.pattern, c.module), c.matches) << c.pattern << " " << c.module;
  // A hostile pattern costs pattern x name, not an exponential.
  std::string stars;
  for (int i = 0; i < 2000; ++i) stars += "*a";
  EXPECT_FALSE(matches_module(stars + "b", std::string(20'000, 'a')));
}

TEST(Quantization, RefusesOtherWords) {
  const auto config = [](Json section) { return Json{{"quantization_config", std::move(section)}}; };
  const std::pair<Json, Code> cases[] = {
      {config(3), Code::corrupt},
      {config(Json::object()), Code::unsupported},
      {config({{"quant_method", "fp8"}}), Code::unsupported},
      {config({{"quant_method", 1}}), Code::corrupt},
      {config({{"quant_method", "modelopt"}}), Code::corrupt},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "W4A8_AWQ"}}), Code::unsupported},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "MIXED_PRECISION"}}), Code::corrupt},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "MIXED_PRECISION"}, {"quantized_layers", {"a"}}}),
       Code::corrupt},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "MIXED_PRECISION"}, {"quantized_layers", {{"a", 1}}}}),
       Code::corrupt},
      {config({{"quant_method", "modelopt"},
               {"quant_algo", "MIXED_PRECISION"},
               {"quantized_layers", {{"a", {{"quant_algo", "INT4"}}}}}}),
       Code::unsupported},
      {config({{"quant_method", "modelopt"},
               {"quant_algo", "MIXED_PRECISION"},
               {"quantized_layers", {{"a", {{"quant_algo", "NVFP4"}, {"group_size", 32}}}}}}),
       Code::unsupported},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"group_size", 32}}), Code::unsupported},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", "lm_head"}}), Code::corrupt},
      {config({{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}, {"ignore", {1}}}), Code::corrupt},
  };
  for (const auto& [json, code] : cases) EXPECT_EQ(read_quantization(json, std::nullopt).status().code(), code) << json;
  EXPECT_EQ(read_quantization(Json::object(), Json(3)).status().code(), Code::corrupt);
  EXPECT_EQ(read_quantization(Json::object(), Json{{"quantization", 3}}).status().code(), Code::corrupt);
}

// Bytes of both files changed, left out and repeated at random: an answer or an error, never anything else.
TEST(Quantization, IsTotalOverDamagedFiles) {
  const std::string texts[] = {
      R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"MIXED_PRECISION","ignore":["lm_head","mtp*"],
          "quantized_layers":{"lm_head":{"quant_algo":"NVFP4","group_size":16},"model.layers.0.x":{"quant_algo":"FP8"}},
          "kv_cache_scheme":{"num_bits":8},"producer":{"name":"modelopt","version":"0.47.0"}}})",
      R"({"quantization_config":{"quant_method":"compressed-tensors","format":"mixed-precision",
          "quantization_status":"compressed","config_groups":{"group_0":{"targets":["re:.*(q|k)_proj$","Linear"],
          "weights":{"num_bits":4,"type":"float","strategy":"tensor_group","group_size":16,"actorder":null},
          "input_activations":{"num_bits":4,"type":"float","strategy":"tensor_group","group_size":16,"dynamic":"local"}},
          "NVFP4A16":["re:^mtp"]},"ignore":["lm_head","re:.*visual.*"],"sparsity_config":{},"transform_config":{}}})"};
  const std::string hf =
      R"({"producer":{"name":"modelopt"},"quantization":{"quant_algo":"NVFP4","kv_cache_quant_algo":null,"group_size":16,
          "exclude_modules":["lm_head","model.layers.0*"],"quantized_layers":{"a":{"quant_algo":"FP8"}}}})";
  Rng rng(2026);
  const auto damaged = [&](std::string text) {
    for (uint32_t n = rng.bits() % 4; n-- > 0;) {
      const size_t at = rng.bits() % text.size(), size = 1 + rng.bits() % 12;
      switch (rng.bits() % 4) {
        case 0:
          text[at] = "\"{}[]:,0\\enu*"[rng.bits() % 13];
          break;
        case 1:
          text.erase(at, size);
          break;
        case 2:
          text.insert(at, text.substr(rng.bits() % text.size(), size));
          break;
        default:
          text[at] = static_cast<char>(rng.bits());
      }
      if (text.empty()) return std::string("{}");
    }
    return text;
  };
  int read = 0, refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    const Result<Json> config = parse_json(damaged(texts[round % 2]), "config.json");
    const Result<Json> older = parse_json(damaged(hf), "hf_quant_config.json");
    if (!config.ok() || !config->is_object()) continue;
    const Result<Quantization> quantization =
        read_quantization(*config, older.ok() ? std::optional<Json>(*older) : std::nullopt);
    ++(quantization.ok() ? read : refused);
    if (!quantization.ok()) {
      EXPECT_FALSE(quantization.status().message().empty());
      continue;
    }
    for (const char* module : {"lm_head", "model.layers.0.x", "model.language_model.layers.3.self_attn.q_proj", ""}) {
      (void)quantization->format_of(module).ok();
      (void)quantization->excludes(module);
    }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace nibble::checkpoint

#include "model/config.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/rng.h"

namespace nibble::model {
namespace {

constexpr const char* kTables = NIBBLE_SOURCE_DIR "/tests/golden/qwen35_tables/";

Json read_json(const std::string& path) {
  Result<std::string> text = read_file(path);
  EXPECT_TRUE(text.ok()) << text.status().text();
  Result<Json> json = parse_json(*text, path);
  EXPECT_TRUE(json.ok()) << json.status().text();
  return *json;
}

Config read_config(const std::string& path) {
  Result<Config> config = parse_config(read_json(path));
  EXPECT_TRUE(config.ok()) << config.status().text();
  return *config;
}

Json micro() {
  return read_json(NIBBLE_SOURCE_DIR "/tests/golden/micro/config.json");
}

// The released files, in both forms, give exactly the built-in numbers.
TEST(Config, ReadsEveryReleasedSizeInBothForms) {
  const std::pair<const char*, const char*> sizes[] = {
      {"0.8B", "0.8b"}, {"2B", "2b"}, {"4B", "4b"}, {"9B", "9b"}, {"27B", "27b"}};
  for (const auto& [file, name] : sizes) {
    const std::optional<Config> expected = builtin_config(name);
    ASSERT_TRUE(expected);
    Config text = read_config(fmt::format("{}config.{}.text.json", kTables, file));
    EXPECT_EQ(text, *expected) << file;
    Config wrapped = read_config(fmt::format("{}config.{}.vl.json", kTables, file));
    EXPECT_EQ(wrapped.form, Form::wrapped);
    EXPECT_EQ(wrapped.model_type, "qwen3_5");
    wrapped.form = Form::text;
    wrapped.model_type = "qwen3_5_text";
    EXPECT_EQ(wrapped, *expected) << file;
  }
  EXPECT_EQ(builtin_sizes().size(), 5u);
  EXPECT_FALSE(builtin_config("3b"));
}

TEST(Config, DerivedSizesMatchTheTableOf9B) {
  const Config c = *builtin_config("9b");
  EXPECT_EQ(c.key_dim(), 2048);
  EXPECT_EQ(c.value_dim(), 4096);
  EXPECT_EQ(c.conv_dim(), 8192);
  EXPECT_EQ(c.q_proj_rows(), 8192);
  EXPECT_EQ(c.kv_dim(), 1024);
  EXPECT_EQ(c.count(LayerType::linear_attention), 24);
  EXPECT_EQ(c.count(LayerType::full_attention), 8);
  EXPECT_TRUE(c.is_full_attention(3));
  EXPECT_FALSE(c.is_full_attention(4));
}

TEST(Config, ReadsSmallModels) {
  const Config m = read_config(NIBBLE_SOURCE_DIR "/tests/golden/micro/config.json");
  EXPECT_EQ(m.head_dim, 32);
  EXPECT_EQ(m.rotary_dim, 8);
  EXPECT_EQ(m.key_head_dim, 16);
  EXPECT_EQ(m.value_head_dim, 32);
  EXPECT_DOUBLE_EQ(m.rope_theta, 1e4);
  EXPECT_EQ(m.dtype, DType::f32);
  EXPECT_EQ(m.mtp_layers, std::nullopt);
  EXPECT_TRUE(m.attention_gate);
  EXPECT_EQ(m.pad_id, 0);
  EXPECT_EQ(m.bos_id, std::nullopt);

  const Config v = read_config(NIBBLE_SOURCE_DIR "/models/tiny-voice/config.json");
  EXPECT_EQ(v.key_heads, 1);
  EXPECT_EQ(v.head_dim, 256);
  EXPECT_EQ(v.rotary_dim, 64);
  EXPECT_EQ(v.tie_embeddings, false);
  EXPECT_EQ(v.eos_ids, std::vector<int32_t>{1556});
}

TEST(Config, ReadsTheUnslothForm) {
  Json j = read_json(std::string(kTables) + "config.9B.vl.json");
  j["text_config"].erase("dtype");
  j["text_config"]["torch_dtype"] = "bfloat16";
  j["text_config"]["partial_rotary_factor"] = 0.25;
  j["eos_token_id"] = 248046;
  j["pad_token_id"] = 248055;
  j["unsloth_fixed"] = true;
  Result<Config> c = parse_config(j);
  ASSERT_TRUE(c.ok()) << c.status().text();
  EXPECT_EQ(c->eos_ids, (std::vector<int32_t>{248046, 248044}));
  EXPECT_EQ(c->pad_id, 248055);
  EXPECT_EQ(c->dtype, DType::bf16);
}

TEST(Config, ReadsTheGateOfTheNewerModels) {
  Json j = read_json(std::string(kTables) + "config.27B.vl.json");
  j["language_model_only"] = false;
  j["text_config"]["output_gate_type"] = "swish";
  ASSERT_TRUE(parse_config(j).ok());
  EXPECT_EQ(parse_config(j)->gate, GateType::silu);
  j["text_config"]["output_gate_type"] = "sigmoid";
  EXPECT_EQ(parse_config(j)->gate, GateType::sigmoid);
}

TEST(Config, FallsBackAsTheRulesSay) {
  Json j = micro();
  j.erase("layer_types");
  j["rope_parameters"] = nullptr;
  j["rope_theta"] = 5000;
  j.erase("tie_word_embeddings");
  j["attn_output_gate"] = nullptr;
  j["eos_token_id"] = {7, 7, 3};
  Result<Config> c = parse_config(j);
  ASSERT_TRUE(c.ok()) << c.status().text();
  EXPECT_TRUE(c->is_full_attention(3));
  EXPECT_EQ(c->count(LayerType::full_attention), 1);
  EXPECT_DOUBLE_EQ(c->rope_theta, 5000);
  EXPECT_EQ(c->rotary_dim, 8);
  EXPECT_EQ(c->tie_embeddings, std::nullopt);
  EXPECT_EQ(c->eos_ids, (std::vector<int32_t>{7, 3}));

  j["full_attention_interval"] = 2;
  EXPECT_TRUE(parse_config(j)->is_full_attention(1));
  j["rope_scaling"] = {{"type", "default"}, {"rope_theta", 777.0}};
  EXPECT_DOUBLE_EQ(parse_config(j)->rope_theta, 777.0);
}

struct Broken {
  const char* key;
  Json value;
  Code code;
  const char* message;
};

TEST(Config, RefusesWhatItCannotRead) {
  const Broken cases[] = {
      {"model_type", "llama", Code::unsupported,
       "model_type: expected qwen3_5 or qwen3_5_text, got \"llama\" (config.json)"},
      {"model_type", nullptr, Code::corrupt, "model_type: expected qwen3_5 or qwen3_5_text, got none (config.json)"},
      {"model_type", "qwen3_5_moe", Code::unsupported,
       "model_type: expected a dense model, got the mixture of experts qwen3_5_moe (config.json)"},
      {"num_experts", 128, Code::unsupported, "num_experts: expected a dense model, got 128 experts (config.json)"},
      {"hidden_size", "64", Code::corrupt, "hidden_size: expected an integer in [1,131072], got \"64\" (config.json)"},
      {"hidden_size", -64, Code::corrupt, "hidden_size: expected an integer in [1,131072], got -64 (config.json)"},
      {"hidden_size", nullptr, Code::corrupt, "hidden_size: expected a value, got none (config.json)"},
      {"hidden_size", UINT64_MAX, Code::corrupt,
       "hidden_size: expected an integer in [1,131072], got 18446744073709551615 (config.json)"},
      {"num_hidden_layers", 100000, Code::corrupt,
       "num_hidden_layers: expected an integer in [1,512], got 100000 (config.json)"},
      {"num_hidden_layers", 5, Code::corrupt,
       "layer_types: expected a list of num_hidden_layers = 5 names, got 4 (config.json)"},
      {"layer_types", "full", Code::corrupt,
       "layer_types: expected a list of num_hidden_layers = 4 names, got \"full\" (config.json)"},
      {"layer_types",
       {"full_attention", "full_attention", "mamba", "x"},
       Code::unsupported,
       "layer_types: expected linear_attention or full_attention, got \"mamba\" (config.json)"},
      {"num_key_value_heads", 3, Code::corrupt,
       "num_attention_heads: expected a multiple of num_key_value_heads = 3, got 2 (config.json)"},
      {"linear_num_value_heads", 5, Code::corrupt,
       "linear_num_value_heads: expected a multiple of linear_num_key_heads = 2, got 5 (config.json)"},
      {"head_dim", 31, Code::corrupt, "head_dim: expected an even number, got 31 (config.json)"},
      {"rms_norm_eps", 0, Code::corrupt, "rms_norm_eps: expected a number in (0,1], got 0 (config.json)"},
      {"hidden_act", "gelu", Code::unsupported, "hidden_act: expected silu, got \"gelu\" (config.json)"},
      {"output_gate_type", "tanh", Code::unsupported,
       "output_gate_type: expected silu, swish or sigmoid, got \"tanh\" (config.json)"},
      {"attention_bias", true, Code::unsupported, "attention_bias: expected false, got true (config.json)"},
      {"tie_word_embeddings", "no", Code::corrupt,
       "tie_word_embeddings: expected true or false, got \"no\" (config.json)"},
      {"rope_parameters",
       {{"rope_type", "yarn"}, {"rope_theta", 1e4}},
       Code::unsupported,
       "rope_type: expected default, got \"yarn\" (config.json)"},
      {"rope_parameters",
       {{"rope_theta", "big"}},
       Code::corrupt,
       "rope_theta: expected a number in (0,1000000000000], got \"big\" (config.json)"},
      {"rope_parameters",
       {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.1}},
       Code::corrupt,
       "partial_rotary_factor: expected an even number of dims, got 3 of 32 (config.json)"},
      {"eos_token_id", "end", Code::corrupt,
       "eos_token_id: expected a token id or a list of them, got \"end\" (config.json)"},
      {"eos_token_id",
       {1, -2},
       Code::corrupt,
       "eos_token_id: expected a token id or a list of them, got -2 (config.json)"},
      {"text_config", 3, Code::corrupt, "text_config: expected an object, got 3 (config.json)"},
  };
  for (const Broken& broken : cases) {
    Json j = micro();
    j[broken.key] = broken.value;
    const Result<Config> c = parse_config(j);
    ASSERT_FALSE(c.ok()) << broken.key << " = " << broken.value;
    EXPECT_EQ(c.status().code(), broken.code) << broken.message;
    EXPECT_EQ(c.status().message(), broken.message);
  }
  EXPECT_FALSE(parse_config(Json(3)).ok());
  EXPECT_FALSE(parse_config(Json::array()).ok());
}

TEST(Config, WritesWhatItReads) {
  for (std::string_view size : builtin_sizes()) {
    const Config c = *builtin_config(size);
    const Result<Config> again = parse_config(config_json(c));
    ASSERT_TRUE(again.ok()) << again.status().text();
    EXPECT_EQ(*again, c) << size;
  }
  Config m = read_config(NIBBLE_SOURCE_DIR "/tests/golden/micro/config.json");
  m.gate = GateType::sigmoid;
  EXPECT_EQ(*parse_config(config_json(m)), m);
}

// Whatever one value becomes, the answer is a Config within its bounds or a Status.
TEST(Config, SurvivesMutatedValues) {
  const Json original = micro();
  std::vector<std::string> keys;
  for (const auto& [key, value] : original.items()) keys.push_back(key);
  Rng rng(11);
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    Json j = original;
    for (uint32_t n = 1 + rng.below(2); n > 0; --n) {
      const Json values[] = {nullptr,
                             true,
                             -1,
                             0,
                             1,
                             rng.bits(),
                             UINT64_MAX,
                             INT64_MIN,
                             1e308,
                             "text",
                             Json::array(),
                             {rng.bits(), nullptr, "x"},
                             Json::object(),
                             {{"rope_theta", rng.uniform(-1, 1)}}};
      j[keys[rng.below(static_cast<uint32_t>(keys.size()))]] = values[rng.below(14)];
    }
    const Result<Config> c = parse_config(j);
    if (!c.ok()) {
      ++refused;
      EXPECT_EQ(c.status().message().find('\n'), std::string::npos);
      continue;
    }
    EXPECT_EQ(static_cast<int64_t>(c->layer_types.size()), c->layers);
    EXPECT_EQ(c->value_heads % c->key_heads, 0);
    EXPECT_LE(c->rotary_dim, c->head_dim);
  }
  EXPECT_GT(refused, 500);
  EXPECT_LT(refused, 3900);
}

}  // namespace
}  // namespace nibble::model

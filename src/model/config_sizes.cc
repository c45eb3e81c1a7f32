// The released sizes, and config.json from a Config.
#include <string>

#include "model/config.h"

namespace nibble::model {
namespace {

struct Size {
  std::string_view name;
  int64_t hidden, intermediate, layers, heads, kv_heads, value_heads;
  bool tied;
};

// Source: the config.json files of Qwen/Qwen3.5-0.8B … Qwen3.5-27B.
constexpr Size kSizes[] = {
    {"0.8b", 1024, 3584, 24, 8, 2, 16, true},   {"2b", 2048, 6144, 24, 8, 2, 16, true},
    {"4b", 2560, 9216, 32, 16, 4, 32, true},    {"9b", 4096, 12288, 32, 16, 4, 32, false},
    {"27b", 5120, 17408, 64, 24, 4, 48, false},
};

constexpr int64_t kInterval = 4;  // every fourth layer is full attention

const char* word(DType type) {
  return type == DType::f32 ? "float32" : type == DType::f16 ? "float16" : "bfloat16";
}

// The shortest decimal that reads back to x: 1e-06, where the double nearest to the float prints as 9.99999997e-07.
double shortest(float x) {
  return std::stod(fmt::format("{}", x));
}

}  // namespace

std::optional<Config> builtin_config(std::string_view size) {
  for (const Size& s : kSizes) {
    if (s.name != size) continue;
    Config c;
    c.model_type = "qwen3_5_text";
    c.hidden = s.hidden;
    c.intermediate = s.intermediate;
    c.layers = s.layers;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.value_heads = s.value_heads;
    c.tie_embeddings = s.tied;
    c.vocab = 248320;
    c.max_positions = 262144;
    c.head_dim = 256;
    c.rotary_dim = 64;
    c.rope_theta = 1e7;
    c.key_heads = 16;
    c.key_head_dim = c.value_head_dim = 128;
    c.conv_kernel = 4;
    c.norm_eps = 1e-6f;
    c.dtype = DType::bf16;
    c.mtp_layers = 1;
    c.eos_ids = {248044};
    for (int64_t i = 0; i < s.layers; ++i) {
      c.layer_types.push_back((i + 1) % kInterval == 0 ? LayerType::full_attention : LayerType::linear_attention);
    }
    return c;
  }
  return std::nullopt;
}

std::vector<std::string_view> builtin_sizes() {
  std::vector<std::string_view> names;
  for (const Size& s : kSizes) names.push_back(s.name);
  return names;
}

Json config_json(const Config& c) {
  Json types = Json::array();
  for (LayerType type : c.layer_types) {
    types.push_back(type == LayerType::full_attention ? "full_attention" : "linear_attention");
  }
  const auto rotary_factor = static_cast<double>(c.rotary_dim) / static_cast<double>(c.head_dim);
  Json j = {
      {"architectures", {"Qwen3_5ForCausalLM"}},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"attn_output_gate", c.attention_gate},
      {"dtype", word(c.dtype.value_or(DType::bf16))},
      {"head_dim", c.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", c.hidden},
      {"initializer_range", shortest(c.initializer_range)},
      {"intermediate_size", c.intermediate},
      {"layer_types", types},
      {"linear_conv_kernel_dim", c.conv_kernel},
      {"linear_key_head_dim", c.key_head_dim},
      {"linear_num_key_heads", c.key_heads},
      {"linear_num_value_heads", c.value_heads},
      {"linear_value_head_dim", c.value_head_dim},
      {"mamba_ssm_dtype", "float32"},
      {"max_position_embeddings", c.max_positions},
      {"model_type", "qwen3_5_text"},
      {"num_attention_heads", c.heads},
      {"num_hidden_layers", c.layers},
      {"num_key_value_heads", c.kv_heads},
      {"output_gate_type", c.gate == GateType::sigmoid ? "sigmoid" : "swish"},
      {"partial_rotary_factor", rotary_factor},
      {"rms_norm_eps", shortest(c.norm_eps)},
      {"rope_parameters",
       {{"partial_rotary_factor", rotary_factor}, {"rope_theta", c.rope_theta}, {"rope_type", "default"}}},
      {"vocab_size", c.vocab},
  };
  if (c.tie_embeddings) j["tie_word_embeddings"] = *c.tie_embeddings;
  if (c.mtp_layers) j["mtp_num_hidden_layers"] = *c.mtp_layers;
  if (!c.eos_ids.empty()) j["eos_token_id"] = c.eos_ids;
  if (c.pad_id) j["pad_token_id"] = *c.pad_id;
  if (c.bos_id) j["bos_token_id"] = *c.bos_id;
  return j;
}

}  // namespace nibble::model

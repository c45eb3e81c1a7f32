#include "model/config.h"

#include <algorithm>
#include <cmath>

namespace nibble::model {
namespace {

// Bounds far above any released model, and low enough that no product of two sizes comes near 2^63.
constexpr int64_t kMaxWidth = 1 << 17, kMaxIntermediate = 1 << 20, kMaxVocab = 1 << 22, kMaxLayers = 512;
constexpr int64_t kMaxHeads = 1024, kMaxHeadDim = 1024, kMaxPositions = int64_t{1} << 30;
constexpr int64_t kConvKernel = 4;  // the one width that the family uses and ops/conv computes
constexpr int64_t kMaxTokenId = INT32_MAX, kMaxMtpLayers = 16;

// Reads keys of one object. The first error sticks, later reads return defaults: parse_config then reads as a list.
class Reader {
 public:
  Reader(const Json& object, std::string_view where) : object_(object), where_(where) {}

  const Status& status() const { return status_; }
  void set_error(Status error) {
    if (status_.ok()) status_ = std::move(error);
  }

  /// The value, or nullptr when the key is absent or null.
  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  std::optional<int64_t> maybe_integer(const char* key, int64_t low, int64_t high) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const bool fits = value->is_number_integer() &&
                      !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
                      value->get<int64_t>() >= low && value->get<int64_t>() <= high;
    if (!fits) {
      wrong(key, fmt::format("an integer in [{},{}]", low, high), *value);
      return std::nullopt;
    }
    return value->get<int64_t>();
  }
  int64_t integer(const char* key, int64_t low, int64_t high) { return required(key, maybe_integer(key, low, high)); }

  /// A number in (0, high].
  std::optional<double> maybe_positive(const char* key, double high) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !(value->get<double>() > 0) || !(value->get<double>() <= high)) {
      wrong(key, fmt::format("a number in (0,{}]", high), *value);
      return std::nullopt;
    }
    return value->get<double>();
  }
  double positive(const char* key, double high) { return required(key, maybe_positive(key, high)); }

  std::optional<bool> maybe_bool(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) {
      wrong(key, "true or false", *value);
      return std::nullopt;
    }
    return value->get<bool>();
  }

  std::optional<std::string> maybe_string(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) {
      wrong(key, "a string", *value);
      return std::nullopt;
    }
    return value->get<std::string>();
  }

  void wrong(const char* key, std::string_view expected, const Json& got) {
    set_error(corrupt("{}: expected {}, got {} ({})", key, expected, brief(got), where_));
  }

  /// A value as a message shows it: short, and on one line.
  static std::string brief(const Json& value) {
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 60) + "…";
    return text;
  }

 private:
  template <class T>
  T required(const char* key, std::optional<T> value) {
    if (!value) set_error(corrupt("{}: expected a value, got none ({})", key, where_));
    return value.value_or(T(1));  // never 0: nothing divides by zero before the error is seen
  }

  const Json& object_;
  std::string_view where_;
  Status status_;
};

Status check_model_type(const Json& root, const Json& text, std::string_view where, std::string& model_type) {
  for (const Json* object : {&root, &text}) {
    const auto it = object->find("model_type");
    if (it == object->end() || it->is_null()) continue;
    if (!it->is_string()) return corrupt("model_type: expected a string, got {} ({})", Reader::brief(*it), where);
    const auto& type = it->get_ref<const std::string&>();
    if (model_type.empty()) model_type = type;
    if (type == "qwen3_5" || type == "qwen3_5_text") continue;
    if (type == "qwen3_5_moe" || type == "qwen3_5_moe_text") {
      return unsupported("model_type: expected a dense model, got the mixture of experts {} ({})", type, where)
          .with_hint("nibble reads the dense Qwen3.5 family: 0.8B, 2B, 4B, 9B, 27B");
    }
    return unsupported("model_type: expected qwen3_5 or qwen3_5_text, got {} ({})", Reader::brief(*it), where)
        .with_hint("nibble reads the dense Qwen3.5 family: 0.8B, 2B, 4B, 9B, 27B");
  }
  if (model_type.empty()) {
    return corrupt("model_type: expected qwen3_5 or qwen3_5_text, got none ({})", where)
        .with_hint("is this the config.json of a Hugging Face model?");
  }
  const auto experts = text.find("num_experts");
  if (experts != text.end() && experts->is_number() && experts->get<double>() > 0) {
    return unsupported("num_experts: expected a dense model, got {} experts ({})", Reader::brief(*experts), where);
  }
  return {};
}

void read_rope(Reader& t, const Json* rope, std::string_view where, Config& config) {
  static const Json kNone = Json::object();
  if (rope != nullptr && !rope->is_object()) return t.wrong("rope_parameters", "an object", *rope);
  Reader inner(rope != nullptr ? *rope : kNone, where);
  for (const char* key : {"rope_type", "type"}) {
    const auto type = inner.maybe_string(key);
    if (type && *type != "default") {
      t.set_error(unsupported("{}: expected default, got {} ({})", key, Reader::brief(*type), where));
    }
  }
  constexpr double kMaxTheta = 1e12;
  const auto theta = inner.maybe_positive("rope_theta", kMaxTheta);
  const auto factor = inner.maybe_positive("partial_rotary_factor", 1.0);
  t.set_error(inner.status());
  config.rope_theta = theta ? *theta : t.positive("rope_theta", kMaxTheta);
  const double share = factor ? *factor : t.maybe_positive("partial_rotary_factor", 1.0).value_or(0.25);
  config.rotary_dim = static_cast<int64_t>(share * static_cast<double>(config.head_dim));
  if (config.rotary_dim < 2 || config.rotary_dim % 2 != 0) {
    t.set_error(corrupt("partial_rotary_factor: expected an even number of dims, got {} of {} ({})", config.rotary_dim,
                        config.head_dim, where));
  }
}

void read_layer_types(Reader& t, std::string_view where, Config& config) {
  const int64_t interval = t.maybe_integer("full_attention_interval", 1, kMaxLayers).value_or(4);
  const Json* list = t.find("layer_types");
  if (list == nullptr) {
    for (int64_t i = 0; i < config.layers; ++i) {
      config.layer_types.push_back((i + 1) % interval == 0 ? LayerType::full_attention : LayerType::linear_attention);
    }
    return;
  }
  if (!list->is_array() || list->size() != static_cast<size_t>(config.layers)) {
    return t.set_error(corrupt("layer_types: expected a list of num_hidden_layers = {} names, got {} ({})",
                               config.layers, list->is_array() ? fmt::format("{}", list->size()) : Reader::brief(*list),
                               where));
  }
  for (const Json& type : *list) {
    if (type == "linear_attention") {
      config.layer_types.push_back(LayerType::linear_attention);
    } else if (type == "full_attention") {
      config.layer_types.push_back(LayerType::full_attention);
    } else {
      return t.set_error(unsupported("layer_types: expected linear_attention or full_attention, got {} ({})",
                                     Reader::brief(type), where));
    }
  }
}

void read_choices(Reader& t, std::string_view where, Config& config) {
  const std::string act = t.maybe_string("hidden_act").value_or("silu");
  if (act != "silu" && act != "swish") {
    t.set_error(unsupported("hidden_act: expected silu, got {} ({})", Reader::brief(act), where));
  }
  const std::string gate = t.maybe_string("output_gate_type").value_or("silu");
  if (gate == "sigmoid") {
    config.gate = GateType::sigmoid;
  } else if (gate != "silu" && gate != "swish") {
    t.set_error(
        unsupported("output_gate_type: expected silu, swish or sigmoid, got {} ({})", Reader::brief(gate), where));
  }
  config.attention_gate = t.maybe_bool("attn_output_gate").value_or(true);
  if (t.maybe_bool("attention_bias").value_or(false)) {
    t.set_error(unsupported("attention_bias: expected false, got true ({})", where));
  }
}

void append_eos(Reader& reader, Config& config) {
  const Json* eos = reader.find("eos_token_id");
  if (eos == nullptr) return;
  constexpr size_t kMaxStops = 1000;
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId) {
      return reader.wrong("eos_token_id", "a token id or a list of them", id);
    }
    const auto value = id.get<int32_t>();
    if (std::find(config.eos_ids.begin(), config.eos_ids.end(), value) == config.eos_ids.end()) {
      config.eos_ids.push_back(value);
    }
  };
  if (!eos->is_array()) return add(*eos);
  if (eos->size() > kMaxStops) return reader.wrong("eos_token_id", "a token id or a list of them", *eos);
  for (const Json& id : *eos) add(id);
}

std::optional<int32_t> token_id(Reader& t, Reader& root, const char* key) {
  auto id = t.maybe_integer(key, 0, kMaxTokenId);
  if (!id) id = root.maybe_integer(key, 0, kMaxTokenId);
  if (!id) return std::nullopt;
  return static_cast<int32_t>(*id);
}

std::optional<DType> dtype_of(const std::optional<std::string>& word) {
  if (word == "bfloat16") return DType::bf16;
  if (word == "float32") return DType::f32;
  if (word == "float16") return DType::f16;
  return std::nullopt;
}

void read_sizes(Reader& t, Config& config) {
  config.hidden = t.integer("hidden_size", 1, kMaxWidth);
  config.intermediate = t.integer("intermediate_size", 1, kMaxIntermediate);
  config.layers = t.integer("num_hidden_layers", 1, kMaxLayers);
  config.vocab = t.integer("vocab_size", 1, kMaxVocab);
  config.max_positions = t.integer("max_position_embeddings", 1, kMaxPositions);
  config.heads = t.integer("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = t.integer("num_key_value_heads", 1, kMaxHeads);
  config.head_dim = t.integer("head_dim", 2, kMaxHeadDim);
  config.key_heads = t.integer("linear_num_key_heads", 1, kMaxHeads);
  config.value_heads = t.integer("linear_num_value_heads", 1, kMaxHeads);
  config.key_head_dim = t.integer("linear_key_head_dim", 1, kMaxHeadDim);
  config.value_head_dim = t.integer("linear_value_head_dim", 1, kMaxHeadDim);
  config.conv_kernel = t.integer("linear_conv_kernel_dim", kConvKernel, kConvKernel);
  config.norm_eps = static_cast<float>(t.positive("rms_norm_eps", 1.0));
  config.initializer_range = static_cast<float>(t.maybe_positive("initializer_range", 1.0).value_or(0.02));
  config.mtp_layers = t.maybe_integer("mtp_num_hidden_layers", 0, kMaxMtpLayers);
}

void check_divisors(Reader& t, std::string_view where, const Config& config) {
  if (config.heads % config.kv_heads != 0) {
    t.set_error(corrupt("num_attention_heads: expected a multiple of num_key_value_heads = {}, got {} ({})",
                        config.kv_heads, config.heads, where));
  }
  if (config.value_heads % config.key_heads != 0) {
    t.set_error(corrupt("linear_num_value_heads: expected a multiple of linear_num_key_heads = {}, got {} ({})",
                        config.key_heads, config.value_heads, where));
  }
  if (config.head_dim % 2 != 0) {
    t.set_error(corrupt("head_dim: expected an even number, got {} ({})", config.head_dim, where));
  }
}

}  // namespace

int64_t Config::count(LayerType type) const {
  return std::count(layer_types.begin(), layer_types.end(), type);
}

Result<Config> parse_config(const Json& root, std::string_view where) {
  if (!root.is_object()) return corrupt("config: expected an object, got {} ({})", Reader::brief(root), where);
  const auto wrapped = root.find("text_config");
  const bool is_wrapped = wrapped != root.end() && !wrapped->is_null();
  if (is_wrapped && !wrapped->is_object()) {
    return corrupt("text_config: expected an object, got {} ({})", Reader::brief(*wrapped), where);
  }
  const Json& text = is_wrapped ? *wrapped : root;

  Config config;
  config.form = is_wrapped ? Form::wrapped : Form::text;
  NIBBLE_RETURN_IF_ERROR(check_model_type(root, text, where, config.model_type));
  Reader t(text, where), r(root, where);
  read_sizes(t, config);
  check_divisors(t, where, config);
  const Json* rope = t.find("rope_parameters");
  read_rope(t, rope != nullptr ? rope : t.find("rope_scaling"), where, config);
  if (t.status().ok()) read_layer_types(t, where, config);
  read_choices(t, where, config);
  config.tie_embeddings = t.maybe_bool("tie_word_embeddings");
  if (!config.tie_embeddings) config.tie_embeddings = r.maybe_bool("tie_word_embeddings");
  for (Reader* reader : {&t, &r}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const auto word = reader->maybe_string(key);
      if (!config.dtype) config.dtype = dtype_of(word);
    }
  }
  append_eos(r, config);
  append_eos(t, config);
  config.pad_id = token_id(t, r, "pad_token_id");
  config.bos_id = token_id(t, r, "bos_token_id");
  NIBBLE_RETURN_IF_ERROR(t.status());
  NIBBLE_RETURN_IF_ERROR(r.status());
  return config;
}

}  // namespace nibble::model

#include "checkpoint/gguf_config.h"

#include <algorithm>

namespace nibble::checkpoint {
namespace {

constexpr const char* kPrefixKey = "nibble.tensor_prefix";
constexpr std::string_view kPrefix = "qwen35.";

std::string key_of(std::string_view name) {
  return std::string(kPrefix) + std::string(name);
}

/// n where full attention is every n-th layer and nothing else; absent for other patterns.
std::optional<int64_t> interval_of(const model::Config& config) {
  int64_t interval = 1;
  while (interval <= config.layers && !config.is_full_attention(interval - 1)) ++interval;
  if (interval > config.layers) return std::nullopt;
  for (int64_t i = 0; i < config.layers; ++i) {
    if (config.is_full_attention(i) != ((i + 1) % interval == 0)) return std::nullopt;
  }
  return interval;
}

Status check_expressible(const model::Config& c, int64_t mtp_layers) {
  const char* hint = "the metadata that llama.cpp reads has no key for it";
  if (c.key_head_dim != c.value_head_dim) {
    return unsupported("gguf: expected one head size in the delta rule, got {} for keys and {} for values",
                       c.key_head_dim, c.value_head_dim)
        .with_hint(hint);
  }
  if (c.gate != model::GateType::silu) {
    return unsupported("gguf: expected the silu gate, got output_gate_type sigmoid").with_hint(hint);
  }
  if (!c.attention_gate) {
    return unsupported("gguf: expected gated attention, got attn_output_gate false").with_hint(hint);
  }
  if (mtp_layers > 1) return unsupported("gguf: expected at most one draft layer, got {}", mtp_layers).with_hint(hint);
  if (!interval_of(c)) {
    return unsupported("gguf: expected full attention at every n-th layer, got layer_types of another pattern")
        .with_hint(hint);
  }
  return {};
}

/// Keys of the file as members of a config.json. The first error sticks.
class Keys {
 public:
  explicit Keys(const Gguf& file) : file_(file) {}

  std::optional<int64_t> maybe_integer(std::string_view name) {
    auto value = file_.integer(key_of(name));
    if (!value.ok()) set_error(value.status());
    return value.ok() ? *value : std::nullopt;
  }
  int64_t integer(std::string_view name) {
    const auto value = maybe_integer(name);
    if (!value) set_error(missing(name));
    return value.value_or(1);
  }
  double number(std::string_view name) {
    auto value = file_.number(key_of(name));
    if (!value.ok()) set_error(value.status());
    if (value.ok() && !*value) set_error(missing(name));
    return value.ok() ? value->value_or(1) : 1;
  }
  void set_error(Status error) {
    if (status_.ok()) status_ = std::move(error);
  }
  const Status& status() const { return status_; }

 private:
  Status missing(std::string_view name) const {
    return corrupt("{}: expected a value, got none ({})", key_of(name), file_.file_name());
  }

  const Gguf& file_;
  Status status_;
};

Status check_architecture(const Gguf& file) {
  NIBBLE_TRY(architecture, file.string("general.architecture"));
  if (!architecture)
    return corrupt("general.architecture: expected {}, got none ({})", kGgufArchitecture, file.file_name());
  if (*architecture == kGgufArchitecture) return {};
  return unsupported("general.architecture: expected {}, got {} ({})", kGgufArchitecture, gguf_shown(*architecture),
                     file.file_name())
      .with_hint("nibble reads the dense Qwen3.5 family: 0.8B, 2B, 4B, 9B, 27B");
}

/// The head size of values: inner_size over the number of heads.
int64_t value_head_dim(Keys& keys, const Gguf& file) {
  const int64_t inner = keys.integer("ssm.inner_size"), heads = keys.integer("ssm.time_step_rank");
  if (inner < 1 || heads < 1 || inner % heads != 0) {
    keys.set_error(corrupt("{}: expected a multiple of {} heads, got {} ({})", key_of("ssm.inner_size"), heads, inner,
                           file.file_name()));
    return 1;
  }
  return inner / heads;
}

}  // namespace

Status add_config(const model::Config& c, std::string_view prefix, int64_t mtp_layers, GgufMetadata& metadata) {
  NIBBLE_RETURN_IF_ERROR(check_expressible(c, mtp_layers));
  const auto add = [&](std::string_view name, int64_t value) {
    metadata.add(key_of(name), static_cast<uint32_t>(value));
  };
  add("block_count", c.layers + mtp_layers);
  if (mtp_layers > 0) add("nextn_predict_layers", mtp_layers);
  add("vocab_size", c.vocab);
  add("context_length", c.max_positions);
  add("embedding_length", c.hidden);
  add("feed_forward_length", c.intermediate);
  add("attention.head_count", c.heads);
  add("attention.head_count_kv", c.kv_heads);
  add("attention.key_length", c.head_dim);
  add("attention.value_length", c.head_dim);
  metadata.add(key_of("attention.layer_norm_rms_epsilon"), c.norm_eps);
  metadata.add(key_of("rope.freq_base"), static_cast<float>(c.rope_theta));
  add("rope.dimension_count", c.rotary_dim);
  // Frequencies by turns to time, height and width, as interleaved M-RoPE deals them: 11, 11, 10 of 32.
  const auto pairs = static_cast<int32_t>(c.rotary_dim / 2);
  metadata.add(key_of("rope.dimension_sections"), std::vector<int32_t>{(pairs + 2) / 3, (pairs + 1) / 3, pairs / 3, 0});
  add("ssm.conv_kernel", c.conv_kernel);
  add("ssm.state_size", c.key_head_dim);
  add("ssm.group_count", c.key_heads);
  add("ssm.time_step_rank", c.value_heads);
  add("ssm.inner_size", c.value_dim());
  add("full_attention_interval", *interval_of(c));
  metadata.add(kPrefixKey, prefix);
  return {};
}

Result<GgufConfig> read_config(const Gguf& file) {
  NIBBLE_RETURN_IF_ERROR(check_architecture(file));
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return corrupt("token_embd.weight: expected a matrix, got {} ({})",
                   embedding == nullptr ? "no such tensor" : embedding->text(), file.file_name());
  }
  GgufConfig out;
  out.tied = file.find("output.weight") == nullptr;
  Keys keys(file);
  out.mtp_layers = keys.maybe_integer("nextn_predict_layers").value_or(0);
  const int64_t blocks = keys.integer("block_count"), head_dim = keys.integer("attention.key_length");
  if (out.mtp_layers < 0 || out.mtp_layers > 1) {
    keys.set_error(unsupported("{}: expected 0 or 1, got {} ({})", key_of("nextn_predict_layers"), out.mtp_layers,
                               file.file_name()));
  }
  if (const auto value_length = keys.maybe_integer("attention.value_length");
      value_length.value_or(head_dim) != head_dim) {
    keys.set_error(corrupt("{}: expected {} as for keys, got {} ({})", key_of("attention.value_length"), head_dim,
                           *value_length, file.file_name()));
  }
  const int64_t rotary = keys.integer("rope.dimension_count");
  // The reader of config.json takes the whole part of factor * head_dim: half a dim keeps it from falling one short.
  const double half = rotary == head_dim ? 0 : 0.5;
  Json json = {{"model_type", "qwen3_5_text"},
               {"num_hidden_layers", blocks > 0 ? blocks - out.mtp_layers : blocks},
               {"vocab_size", embedding->shape[0]},
               {"hidden_size", keys.integer("embedding_length")},
               {"intermediate_size", keys.integer("feed_forward_length")},
               {"max_position_embeddings", keys.integer("context_length")},
               {"num_attention_heads", keys.integer("attention.head_count")},
               {"num_key_value_heads", keys.integer("attention.head_count_kv")},
               {"head_dim", head_dim},
               {"rms_norm_eps", keys.number("attention.layer_norm_rms_epsilon")},
               {"rope_theta", keys.number("rope.freq_base")},
               {"partial_rotary_factor",
                (static_cast<double>(rotary) + half) / static_cast<double>(std::max<int64_t>(1, head_dim))},
               {"linear_conv_kernel_dim", keys.integer("ssm.conv_kernel")},
               {"linear_key_head_dim", keys.integer("ssm.state_size")},
               {"linear_value_head_dim", value_head_dim(keys, file)},
               {"linear_num_key_heads", keys.integer("ssm.group_count")},
               {"linear_num_value_heads", keys.integer("ssm.time_step_rank")},
               {"full_attention_interval", keys.maybe_integer("full_attention_interval").value_or(4)},
               {"mtp_num_hidden_layers", out.mtp_layers},
               {"tie_word_embeddings", out.tied}};
  NIBBLE_RETURN_IF_ERROR(keys.status());
  NIBBLE_TRY(config, model::parse_config(json, file.file_name()));
  out.config = std::move(config);
  return out;
}

Result<std::string_view> gguf_prefix(const Gguf& file) {
  NIBBLE_TRY(prefix, file.string(kPrefixKey));
  return prefix == model::kWrappedPrefix ? model::kWrappedPrefix : model::kTextPrefix;
}

bool same_model(const model::Config& a, const model::Config& b) {
  model::Config c = b;
  c.form = a.form;
  c.model_type = a.model_type;
  c.initializer_range = a.initializer_range;
  c.tie_embeddings = a.tie_embeddings;
  c.dtype = a.dtype;
  c.mtp_layers = a.mtp_layers;
  c.eos_ids = a.eos_ids;
  c.pad_id = a.pad_id;
  c.bos_id = a.bos_id;
  if (static_cast<float>(c.rope_theta) == static_cast<float>(a.rope_theta)) c.rope_theta = a.rope_theta;
  return a == c;
}

}  // namespace nibble::checkpoint

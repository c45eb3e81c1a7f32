// Config: the numbers of a dense Qwen3.5 text model, read from a Hugging Face config.json in any of its forms.
//
// Letters as everywhere: H hidden, I intermediate, V vocabulary, L layers, nh/nkv attention heads, D head dim, Hk/Hv
// and Dk/Dv heads and head dims of the delta rule.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "tensor/dtype.h"

namespace nibble::model {

enum class LayerType : uint8_t { linear_attention, full_attention };

/// The gate of the delta rule's norm: y = norm(x) * act(z).
enum class GateType : uint8_t { silu, sigmoid };

/// Which of the two tensor prefixes and config shapes a checkpoint uses.
enum class Form : uint8_t {
  text,     // model_type qwen3_5_text, keys at the top level, tensors "model.*"
  wrapped,  // model_type qwen3_5, keys under text_config, tensors "model.language_model.*", maybe a vision tower
};

struct Config {
  Form form = Form::text;
  std::string model_type;  // as the file says

  int64_t hidden = 0;        // H
  int64_t intermediate = 0;  // I
  int64_t layers = 0;        // L
  int64_t vocab = 0;         // V, rows of the embedding; ids the tokenizer does not know are masked by the sampler
  int64_t max_positions = 0;
  std::vector<LayerType> layer_types;  // L

  int64_t heads = 0;       // nh
  int64_t kv_heads = 0;    // nkv, divides nh
  int64_t head_dim = 0;    // D, read and never H / nh
  int64_t rotary_dim = 0;  // the first dims of a head that rope turns; even, at most D
  double rope_theta = 0;
  bool attention_gate = true;  // q_proj holds D rows of q, then D rows of gate, per head

  int64_t key_heads = 0;       // Hk
  int64_t value_heads = 0;     // Hv, a multiple of Hk
  int64_t key_head_dim = 0;    // Dk
  int64_t value_head_dim = 0;  // Dv
  int64_t conv_kernel = 0;     // taps of the causal depthwise convolution: 4
  GateType gate = GateType::silu;

  float norm_eps = 0;
  float initializer_range = 0.02f;
  std::optional<bool> tie_embeddings;  // as the file says; absent = decided by whether lm_head.weight exists
  std::optional<DType> dtype;          // of the unquantized weights, as the file says
  std::optional<int64_t> mtp_layers;   // as the file says; absent = as many as the tensors show

  std::vector<int32_t> eos_ids;  // root and text_config together, in this order, without repetition
  std::optional<int32_t> pad_id, bos_id;

  bool is_full_attention(int64_t layer) const {
    return layer_types[static_cast<size_t>(layer)] == LayerType::full_attention;
  }
  int64_t count(LayerType type) const;
  int64_t key_dim() const { return key_heads * key_head_dim; }        // Hk*Dk
  int64_t value_dim() const { return value_heads * value_head_dim; }  // Hv*Dv
  int64_t conv_dim() const { return 2 * key_dim() + value_dim(); }    // CD: q, k and v channels
  int64_t q_dim() const { return heads * head_dim; }                  // columns of o_proj
  int64_t q_proj_rows() const { return (attention_gate ? 2 : 1) * q_dim(); }
  int64_t kv_dim() const { return kv_heads * head_dim; }

  bool operator==(const Config&) const = default;
};

/// Reads config.json. Rules: t = text_config or the root; null counts as absent; theta and rotary factor from
/// rope_parameters (or rope_scaling) first, then beside it; layer_types, else full attention at every
/// full_attention_interval-th layer. Every number is range-checked, so later products cannot overflow.
/// `unsupported` for another model_type, a mixture of experts, an unknown rope_type, hidden_act or output_gate_type,
/// attention biases; `corrupt` for missing, mistyped or impossible values. `where` names the file in messages.
Result<Config> parse_config(const Json& root, std::string_view where = "config.json");

/// The released sizes: "0.8b", "2b", "4b", "9b", "27b" in text form. Absent for other names.
std::optional<Config> builtin_config(std::string_view size);
std::vector<std::string_view> builtin_sizes();

/// A config.json in text form that parses back to `config`.
Json config_json(const Config& config);

}  // namespace nibble::model

#include "checkpoint/gguf_layout.h"

#include <cmath>

namespace nibble::checkpoint {
namespace {

using model::TensorKind;

struct Rename {
  std::string_view hf, gguf;
  HeadOrder order = HeadOrder::none;
  bool whole_head = false;  // a head has Dv rows or columns, else one
};

constexpr Rename kOfBlock[] = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "post_attention_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"linear_attn.in_proj_qkv.weight", "attn_qkv.weight", HeadOrder::rows_of_v, true},
    {"linear_attn.in_proj_z.weight", "attn_gate.weight", HeadOrder::rows, true},
    {"linear_attn.in_proj_b.weight", "ssm_beta.weight", HeadOrder::rows},
    {"linear_attn.in_proj_a.weight", "ssm_alpha.weight", HeadOrder::rows},
    {"linear_attn.conv1d.weight", "ssm_conv1d.weight", HeadOrder::rows_of_v, true},
    {"linear_attn.A_log", "ssm_a", HeadOrder::rows},
    {"linear_attn.dt_bias", "ssm_dt.bias", HeadOrder::rows},
    {"linear_attn.norm.weight", "ssm_norm.weight"},
    {"linear_attn.out_proj.weight", "ssm_out.weight", HeadOrder::columns, true},
};

constexpr Rename kOfModel[] = {
    {"embed_tokens.weight", "token_embd.weight"},
    {"norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};

constexpr Rename kOfDraft[] = {
    {"fc.weight", "nextn.eh_proj.weight"},
    {"pre_fc_norm_embedding.weight", "nextn.enorm.weight"},
    {"pre_fc_norm_hidden.weight", "nextn.hnorm.weight"},
    {"norm.weight", "nextn.shared_head_norm.weight"},
};

template <size_t n>
const Rename& find(const Rename (&list)[n], std::string_view name) {
  for (const Rename& rename : list) {
    if (rename.hf == name) return rename;
  }
  NIBBLE_CHECK(false);
  return list[0];
}

GgufSlot slot_of(const model::Config& config, model::TensorSlot hf, std::string_view prefix) {
  constexpr std::string_view kLayers = "layers.", kDraft = "mtp.";
  GgufSlot slot;
  std::string_view name = hf.name;
  const bool draft = name.starts_with(kDraft);
  name.remove_prefix(draft ? kDraft.size() : name.starts_with(prefix) ? prefix.size() : 0);
  const Rename* rename = nullptr;
  if (name.starts_with(kLayers)) {
    name.remove_prefix(kLayers.size());
    const size_t dot = name.find('.');
    rename = &find(kOfBlock, name.substr(dot + 1));
    const int64_t layer = (draft ? config.layers : 0) + std::stoll(std::string(name.substr(0, dot)));
    slot.name = fmt::format("blk.{}.{}", layer, rename->gguf);
  } else if (draft) {
    rename = &find(kOfDraft, name);
    slot.name = fmt::format("blk.{}.{}", config.layers, rename->gguf);
  } else {
    rename = &find(kOfModel, name);
    slot.name = rename->gguf;
  }
  if (config.key_heads != config.value_heads) slot.order = rename->order;
  slot.head = rename->whole_head ? config.value_head_dim : 1;
  for (int i = 0; i < hf.shape.rank(); ++i) {
    if (hf.kind != TensorKind::conv || i != 1) slot.shape.push_back(hf.shape[i]);
  }
  slot.hf = std::move(hf);
  return slot;
}

}  // namespace

std::vector<GgufSlot> gguf_slots(const model::Config& config, std::string_view prefix, bool tied, int64_t mtp_layers) {
  NIBBLE_CHECK(mtp_layers == 0 || mtp_layers == 1);
  std::vector<GgufSlot> slots;
  for (model::TensorSlot& hf : model::text_slots(config, prefix, tied)) {
    slots.push_back(slot_of(config, std::move(hf), prefix));
  }
  if (mtp_layers == 0) return slots;
  for (model::TensorSlot& hf : model::mtp_slots(config, mtp_layers)) {
    slots.push_back(slot_of(config, std::move(hf), prefix));
  }
  return slots;
}

int64_t checkpoint_index(const model::Config& config, const GgufSlot& slot, int64_t i) {
  if (slot.order == HeadOrder::none) return i;
  const int64_t first = slot.order == HeadOrder::rows_of_v ? 2 * config.key_dim() : 0;
  if (i < first) return i;
  const int64_t tiled = (i - first) / slot.head, within = (i - first) % slot.head;
  const int64_t ratio = config.value_heads / config.key_heads;
  const int64_t grouped = tiled % config.key_heads * ratio + tiled / config.key_heads;
  return first + grouped * slot.head + within;
}

float to_gguf(TensorKind kind, float value) {
  if (kind == TensorKind::norm) return 1 + value;
  if (kind == TensorKind::a_log) return static_cast<float>(-std::exp(static_cast<double>(value)));
  return value;
}

float from_gguf(TensorKind kind, float value) {
  if (kind == TensorKind::norm) return value - 1;
  if (kind == TensorKind::a_log) return static_cast<float>(std::log(-static_cast<double>(value)));
  return value;
}

}  // namespace nibble::checkpoint

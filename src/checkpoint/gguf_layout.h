// How a Qwen3.5 model stands in a GGUF file: names, the order of the value heads, and what happens to values. Internal
// to checkpoint/.
//
// Tensors (left as transformers calls them, "layers.L." is "blk.L."):
//   embed_tokens token_embd      norm output_norm            lm_head output, absent where the head is tied
//   input_layernorm attn_norm    post_attention_layernorm post_attention_norm
//   mlp.gate_proj ffn_gate       mlp.up_proj ffn_up          mlp.down_proj ffn_down
//   self_attn.q_proj attn_q      k_proj attn_k    v_proj attn_v    o_proj attn_output    q_norm attn_q_norm    k_norm …
//   linear_attn.in_proj_qkv attn_qkv    in_proj_z attn_gate    in_proj_b ssm_beta    in_proj_a ssm_alpha
//   conv1d ssm_conv1d [CD,4]     A_log ssm_a      dt_bias ssm_dt.bias    norm ssm_norm    out_proj ssm_out
//   mtp.layers.0 is block L, beside it nextn.{eh_proj,enorm,hnorm,shared_head_norm}: fc, pre_fc_norm_embedding,
//   pre_fc_norm_hidden, norm
// Values: zero-centred norms are stored as 1 + w, A_log as -exp(A_log), both in f32; every vector and conv1d is F32.
// Value heads: checkpoints group them by key head (head k*r + j belongs to key head k, r = Hv/Hk); GGUF tiles them
// (head j*Hk + k). That order is the one of the v rows of in_proj_qkv and conv1d, of the rows of in_proj_z, in_proj_b,
// in_proj_a, A_log and dt_bias, and of the columns of out_proj. (conversion/qwen.py and src/models/qwen35.cpp of
// ggml-org/llama.cpp.)
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/names.h"

namespace nibble::checkpoint {

enum class HeadOrder : uint8_t { none, rows, rows_of_v, columns };

struct GgufSlot {
  model::TensorSlot hf;
  std::string name;            // in the GGUF file
  std::vector<int64_t> shape;  // there, outermost first
  HeadOrder order = HeadOrder::none;
  int64_t head = 1;  // rows or columns of one value head

  bool is_matrix() const { return hf.kind == model::TensorKind::linear || hf.kind == model::TensorKind::embedding; }
};

/// All tensors of the model, those of `mtp_layers` (0 or 1) draft layers last.
std::vector<GgufSlot> gguf_slots(const model::Config& config, std::string_view prefix, bool tied, int64_t mtp_layers);

/// Where row i (column i, in order columns) of the GGUF tensor stands in the checkpoint's.
int64_t checkpoint_index(const model::Config& config, const GgufSlot& slot, int64_t i);

/// A value of a vector or of conv1d on its way into the file, and back.
float to_gguf(model::TensorKind kind, float value);
float from_gguf(model::TensorKind kind, float value);

}  // namespace nibble::checkpoint

// The numbers of a model as llama.cpp's metadata for the architecture "qwen35" gives them. Internal to checkpoint/.
//
// <key> is "qwen35.<key>":
//   block_count (the draft layer counts), nextn_predict_layers, vocab_size, context_length, embedding_length,
//   feed_forward_length, attention.head_count, attention.head_count_kv, attention.key_length, attention.value_length,
//   attention.layer_norm_rms_epsilon, rope.freq_base, rope.dimension_count, rope.dimension_sections (4 numbers, which
//   say nothing for text), ssm.conv_kernel 4, ssm.state_size Dk, ssm.group_count Hk, ssm.time_step_rank Hv,
//   ssm.inner_size Hv*Dv, full_attention_interval
// What these keys cannot say is refused on the way out: other layer types than every interval-th, Dk != Dv, a sigmoid
// gate, an attention without gate, more than one draft layer.
#pragma once

#include "io/gguf_writer.h"
#include "model/names.h"

namespace nibble::checkpoint {

inline constexpr std::string_view kGgufArchitecture = "qwen35";

/// Adds the keys above, and "nibble.tensor_prefix".
Status add_config(const model::Config& config, std::string_view prefix, int64_t mtp_layers, GgufMetadata& metadata);

struct GgufConfig {
  model::Config config;
  int64_t mtp_layers = 0;
  bool tied = false;
};

/// Sizes from the metadata; the vocabulary's from the embedding, the tie from whether there is an "output.weight".
Result<GgufConfig> read_config(const Gguf& file);

/// How the tensors' names begin in the checkpoint that the file was made from, as "nibble.tensor_prefix" says; the text
/// prefix where nothing does.
Result<std::string_view> gguf_prefix(const Gguf& file);

/// Whether both describe the same tensors and computation; token ids, spellings and dtypes aside.
bool same_model(const model::Config& a, const model::Config& b);

}  // namespace nibble::checkpoint

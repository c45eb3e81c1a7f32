#include "model/weights.h"

#include <utility>

namespace nibble::model {
namespace {

void visit_gdn(const Config& c, const std::string& p, GdnWeights& w, WeightsVisitor& v) {
  v.linear(p + "in_proj_qkv", w.in_proj_qkv, c.conv_dim(), c.hidden);
  v.linear(p + "in_proj_z", w.in_proj_z, c.value_dim(), c.hidden);
  v.linear(p + "in_proj_b", w.in_proj_b, c.value_heads, c.hidden);
  v.linear(p + "in_proj_a", w.in_proj_a, c.value_heads, c.hidden);
  v.tensor(p + "conv1d.weight", w.conv, {c.conv_dim(), 1, c.conv_kernel}, TensorKind::conv);
  v.tensor(p + "A_log", w.a_log, {c.value_heads}, TensorKind::a_log);
  v.tensor(p + "dt_bias", w.dt_bias, {c.value_heads}, TensorKind::dt_bias);
  v.tensor(p + "norm.weight", w.norm, {c.value_head_dim}, TensorKind::gated_norm);
  v.linear(p + "out_proj", w.out_proj, c.hidden, c.value_dim());
}

void visit_attention(const Config& c, const std::string& p, AttentionWeights& w, WeightsVisitor& v) {
  v.linear(p + "q_proj", w.q_proj, c.q_proj_rows(), c.hidden);
  v.linear(p + "k_proj", w.k_proj, c.kv_dim(), c.hidden);
  v.linear(p + "v_proj", w.v_proj, c.kv_dim(), c.hidden);
  v.linear(p + "o_proj", w.o_proj, c.hidden, c.q_dim());
  v.tensor(p + "q_norm.weight", w.q_norm, {c.head_dim}, TensorKind::norm);
  v.tensor(p + "k_norm.weight", w.k_norm, {c.head_dim}, TensorKind::norm);
}

/// Passes the Linears on and leaves the rest.
class LinearVisitor : public WeightsVisitor {
 public:
  explicit LinearVisitor(const std::function<void(std::string_view, ops::Linear&)>& visit) : visit_(visit) {}
  void linear(const std::string& name, ops::Linear& linear, int64_t, int64_t) override { visit_(name, linear); }
  void tensor(const std::string&, Tensor&, const Shape&, TensorKind) override {}

 private:
  const std::function<void(std::string_view, ops::Linear&)>& visit_;
};

}  // namespace

void visit_block(const Config& c, const std::string& prefix, BlockWeights& block, WeightsVisitor& v) {
  v.tensor(prefix + "input_layernorm.weight", block.input_norm, {c.hidden}, TensorKind::norm);
  v.tensor(prefix + "post_attention_layernorm.weight", block.post_norm, {c.hidden}, TensorKind::norm);
  if (block.gdn) visit_gdn(c, prefix + "linear_attn.", *block.gdn, v);
  if (block.attention) visit_attention(c, prefix + "self_attn.", *block.attention, v);
  v.linear(prefix + "mlp.gate_proj", block.mlp.gate_proj, c.intermediate, c.hidden);
  v.linear(prefix + "mlp.up_proj", block.mlp.up_proj, c.intermediate, c.hidden);
  v.linear(prefix + "mlp.down_proj", block.mlp.down_proj, c.hidden, c.intermediate);
}

void visit_weights(Weights& w, WeightsVisitor& v) {
  const Config& c = w.config;
  v.tensor(w.prefix + "embed_tokens.weight", w.embed, {c.vocab, c.hidden}, TensorKind::embedding);
  for (size_t i = 0; i < w.blocks.size(); ++i) {
    visit_block(c, fmt::format("{}layers.{}.", w.prefix, i), w.blocks[i], v);
  }
  v.tensor(w.prefix + "norm.weight", w.final_norm, {c.hidden}, TensorKind::norm);
  if (!w.tied) v.linear("lm_head", w.lm_head, c.vocab, c.hidden);
}

Weights blank_weights(const Config& config, std::string_view prefix, bool tied) {
  Weights w;
  w.config = config;
  w.prefix = prefix;
  w.tied = tied;
  w.blocks.resize(static_cast<size_t>(config.layers));
  for (int64_t i = 0; i < config.layers; ++i) {
    BlockWeights& block = w.blocks[static_cast<size_t>(i)];
    if (config.is_full_attention(i)) {
      block.attention.emplace();
    } else {
      block.gdn.emplace();
    }
  }
  return w;
}

void Weights::for_each_linear(const std::function<void(std::string_view, ops::Linear&)>& visit) {
  LinearVisitor visitor(visit);
  visit_weights(*this, visitor);
  if (tied) visit("lm_head", lm_head);
}

void Weights::for_each_linear(const std::function<void(std::string_view, const ops::Linear&)>& visit) const {
  // The visitor below only reads, so taking constness away for the walk changes nothing.
  const_cast<Weights*>(this)->for_each_linear(
      [&](std::string_view name, ops::Linear& linear) { visit(name, std::as_const(linear)); });
}

ops::Linear dense_linear(const Tensor& weight) {
  NIBBLE_CHECK(weight.rank() == 2 && (weight.dtype() == DType::f32 || weight.dtype() == DType::bf16));
  ops::Linear linear;
  linear.format = weight.dtype() == DType::f32 ? ops::WeightFormat::f32 : ops::WeightFormat::bf16;
  linear.out = weight.dim(0);
  linear.in = weight.dim(1);
  linear.weight = weight;
  return linear;
}

uint64_t embedding_row_bytes(const Weights& weights) {
  return weights.embed.empty() ? 0 : weights.embed.bytes() / static_cast<uint64_t>(weights.config.vocab);
}

uint64_t bytes_per_token(const Weights& weights) {
  uint64_t bytes = embedding_row_bytes(weights);
  weights.for_each_linear([&](std::string_view, const ops::Linear& linear) { bytes += linear.weight_bytes(); });
  return bytes;
}

}  // namespace nibble::model

#include "model/pass_op.h"

#include <vector>

#include "model/state.h"

namespace nibble::model {
namespace {

std::vector<const ops::Linear*> products(const BlockWeights& w, PassOp op) {
  if (op == PassOp::gate_up) return {&w.mlp.gate_proj, &w.mlp.up_proj};
  if (op == PassOp::down) return {&w.mlp.down_proj};
  if (w.attention && op == PassOp::attention_in)
    return {&w.attention->q_proj, &w.attention->k_proj, &w.attention->v_proj};
  if (w.attention && op == PassOp::attention_out) return {&w.attention->o_proj};
  if (w.gdn && op == PassOp::delta_in)
    return {&w.gdn->in_proj_qkv, &w.gdn->in_proj_z, &w.gdn->in_proj_a, &w.gdn->in_proj_b};
  if (w.gdn && op == PassOp::delta_out) return {&w.gdn->out_proj};
  return {};
}

// Of all layers.
std::vector<const ops::Linear*> products(const Weights& weights, PassOp op) {
  if (op == PassOp::head) return {&weights.lm_head};
  std::vector<const ops::Linear*> all;
  for (const BlockWeights& block : weights.blocks) {
    for (const ops::Linear* w : products(block, op)) all.push_back(w);
  }
  return all;
}

}  // namespace

const char* name(PassOp op) {
  constexpr const char* kNames[] = {"ids in",      "embed",    "norm",    "q+k+v", "attention", "o_proj",  "qkv+z+a+b",
                                    "delta mixer", "out_proj", "gate+up", "down",  "head",      "sampling"};
  static_assert(std::size(kNames) == kPassOps);
  return kNames[static_cast<size_t>(op)];
}

uint64_t step_bytes(const Weights& weights, PassOp op, int64_t sequences, int64_t position, DType kv_dtype) {
  const Config& c = weights.config;
  const auto count = static_cast<uint64_t>(sequences);
  if (op == PassOp::embed) return embedding_row_bytes(weights);
  if (op == PassOp::attention) return count * history_bytes_per_token(c, position, kv_dtype);
  if (op == PassOp::delta) return count * delta_bytes_per_token(c);
  uint64_t bytes = 0;
  for (const ops::Linear* w : products(weights, op)) bytes += w->weight_bytes();
  return bytes;
}

double prompt_flops(const Weights& weights, PassOp op, int64_t tokens) {
  const Config& c = weights.config;
  const auto T = static_cast<double>(tokens);
  if (op == PassOp::attention) {  // q k^T and its product with v, of every token with those up to it
    const auto width = static_cast<double>(c.q_dim() * c.count(LayerType::full_attention));
    return 4 * width * T * (T + 1) / 2;
  }
  if (op == PassOp::delta) {  // decay; S^T k, k d^T and S^T q
    const auto state = static_cast<double>(c.value_dim() * c.key_head_dim * c.count(LayerType::linear_attention));
    return 7 * state * T;
  }
  double multiplications = 0;
  for (const ops::Linear* w : products(weights, op)) {
    multiplications += static_cast<double>(w->out) * static_cast<double>(w->in);
  }
  return 2 * multiplications * (op == PassOp::head ? 1 : T);
}

}  // namespace nibble::model

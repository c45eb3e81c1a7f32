#include "model/batch_forward.h"

#include <algorithm>

#include "model/block.h"
#include "ops/attention/gated_attention.h"
#include "ops/embed/embed_ids.h"
#include "ops/gated_delta/delta_mixer.h"
#include "ops/linear/linears.h"
#include "ops/norm/add_rms_norm.h"

namespace nibble::model {
namespace {

struct Pass {
  Context& cx;
  const Config& c;
  const ops::Batch& batch;
  int64_t T;
  Marks* marks;

  Tensor rows(std::initializer_list<int64_t> tail) const { return make(activation_type(cx), tail); }
  Tensor make(DType type, std::initializer_list<int64_t> tail) const {
    Shape shape{T};
    for (int64_t d : tail) shape.push_back(d);
    return cx.arena.take(type, shape);
  }
  Tensor inputs_of(std::initializer_list<const ops::Linear*> readers) const { return ops::inputs_of(cx, T, readers); }
  void mark(PassOp op) const {
    if (marks != nullptr) marks->mark(static_cast<uint8_t>(op));
  }
};

Tensor flat(const Tensor& x) {
  return x.reshape({x.dim(0), x.elements() / x.dim(0)});
}

// Between the norm and the output projection; returns the latter's input [T,q_dim].
Tensor attention_layer(const Pass& p, const Tensor& n, const AttentionWeights& w, LayerSlots& slots) {
  const Config& c = p.c;
  const int64_t q_size = c.attention_gate ? 2 * c.head_dim : c.head_dim;
  const Tensor q = p.rows({c.heads, q_size}), k = p.rows({c.kv_heads, c.head_dim}),
               v = p.rows({c.kv_heads, c.head_dim});
  const ops::LinearOutput projections[] = {{&w.q_proj, flat(q)}, {&w.k_proj, flat(k)}, {&w.v_proj, flat(v)}};
  ops::linears(p.cx, n, projections);
  p.mark(PassOp::attention_in);
  Tensor y = p.rows({c.heads, c.head_dim});
  const ops::GatedAttentionWeights weights{w.q_norm, w.k_norm, c.norm_eps, c.rotary_dim, c.rope_theta};
  ops::gated_attention(p.cx, p.batch, q, k, v, weights, slots.keys, slots.values, y);
  p.mark(PassOp::attention);
  return flat(y);
}

// The same for a delta-rule layer; [T,value_dim].
Tensor delta_layer(const Pass& p, const Tensor& n, const GdnWeights& w, LayerSlots& slots) {
  const Config& c = p.c;
  const Tensor mix = p.rows({c.conv_dim()}), z = p.rows({c.value_heads, c.value_head_dim});
  const Tensor a = p.make(DType::f32, {c.value_heads}), b = p.make(DType::f32, {c.value_heads});
  const ops::LinearOutput projections[] = {
      {&w.in_proj_qkv, mix}, {&w.in_proj_z, flat(z)}, {&w.in_proj_a, a}, {&w.in_proj_b, b}};
  ops::linears(p.cx, n, projections);
  p.mark(PassOp::delta_in);
  Tensor y = p.rows({c.value_heads, c.value_head_dim});
  const ops::DeltaMixerWeights weights{w.conv, w.a_log, w.dt_bias, w.norm, kL2Eps, c.norm_eps, gate_of(c.gate)};
  ops::delta_mixer(p.cx, p.batch, mix, z, a, b, weights, slots.conv, slots.S, y);
  p.mark(PassOp::delta);
  return flat(y);
}

// The norm adds `before`, what the block before contributes to the residual stream h, and `y` receives what this one
// does; they may be one tensor.
void block(const Pass& p, const BlockWeights& w, LayerSlots& slots, const Tensor& before, Tensor& h, const Tensor& y) {
  const Arena::Scope scope(p.cx.arena);
  Tensor n = w.attention ? p.inputs_of({&w.attention->q_proj, &w.attention->k_proj, &w.attention->v_proj})
                         : p.inputs_of({&w.gdn->in_proj_qkv, &w.gdn->in_proj_z, &w.gdn->in_proj_a, &w.gdn->in_proj_b});
  ops::add_rms_norm(p.cx, before, w.input_norm, p.c.norm_eps, h, n);
  p.mark(PassOp::norm);
  const Tensor mixed = w.attention ? attention_layer(p, n, *w.attention, slots) : delta_layer(p, n, *w.gdn, slots);
  Tensor out = p.rows({p.c.hidden});
  const ops::LinearOutput project[] = {{w.attention ? &w.attention->o_proj : &w.gdn->out_proj, out}};
  ops::linears(p.cx, mixed, project);
  p.mark(w.attention ? PassOp::attention_out : PassOp::delta_out);
  n = p.inputs_of({&w.mlp.gate_proj, &w.mlp.up_proj});
  ops::add_rms_norm(p.cx, out, w.post_norm, p.c.norm_eps, h, n);
  p.mark(PassOp::norm);
  Tensor m = p.inputs_of({&w.mlp.down_proj});
  ops::linear_swiglu(p.cx, n, w.mlp.gate_proj, w.mlp.up_proj, m);
  p.mark(PassOp::gate_up);
  const ops::LinearOutput down[] = {{&w.mlp.down_proj, y}};
  ops::linears(p.cx, m, down);
  p.mark(PassOp::down);
}

}  // namespace

Status batch_forward(Context& cx, const Weights& weights, Slots& slots, const ops::Batch& batch, const Tensor& ids,
                     Tensor& hidden, Marks* marks) {
  const Config& c = weights.config;
  const Arena::Scope scope(cx.arena);
  const Pass p{cx, c, batch, ids.elements(), marks};
  Tensor h = p.make(DType::f32, {c.hidden}), before;
  const Tensor y = p.rows({c.hidden});
  ops::embed_ids(cx, ids, weights.embed, h);
  p.mark(PassOp::embed);
  for (int64_t i = 0; i < c.layers; ++i) {
    if (cx.cancel.cancelled()) return cancelled("forward: stopped before layer {} of {}", i, c.layers);
    block(p, weights.blocks[static_cast<size_t>(i)], slots.layer(i), before, h, y);
    before = y;
  }
  ops::add_rms_norm(cx, y, weights.final_norm, c.norm_eps, h, hidden);
  p.mark(PassOp::norm);
  return {};
}

size_t batch_scratch_bytes(const Config& c, int64_t rows, int64_t sequences, int64_t reach) {
  const int64_t attention = c.q_proj_rows() + 2 * c.kv_dim() + c.q_dim();
  const int64_t delta = c.conv_dim() + 2 * c.value_dim() + 4 * c.value_heads;
  const int64_t row_bytes = 4 * c.hidden + 2 * (2 * c.hidden + std::max(attention, delta));
  // At least what inputs_of() takes.
  const size_t inputs_bytes =
      2 * ops::linears_scratch_bytes(rows, c.hidden) + ops::linears_scratch_bytes(rows, c.intermediate);
  const ops::Batch batch{.sequences = sequences, .longest = rows, .reach = reach};
  const ops::Batch step{.sequences = sequences, .longest = 1, .reach = reach};
  const size_t ops_bytes =
      std::max({ops::linears_scratch_bytes(rows, std::max({c.hidden, c.intermediate, c.q_dim(), c.value_dim()})),
                ops::gated_attention_scratch_bytes(rows, batch, c.heads, c.kv_heads, c.head_dim),
                ops::gated_attention_scratch_bytes(sequences, step, c.heads, c.kv_heads, c.head_dim),
                ops::delta_mixer_scratch_bytes(rows, sequences, rows, c.key_heads, c.value_heads, c.key_head_dim,
                                               c.value_head_dim)});
  constexpr size_t kHoles = size_t{64} << 10;  // between tensors
  return static_cast<size_t>(rows * row_bytes) + inputs_bytes + ops_bytes + kHoles;
}

void batch_head(Context& cx, const Weights& weights, const Tensor& hidden, Tensor& logits) {
  const ops::LinearOutput head[] = {{&weights.lm_head, logits}};
  ops::linears(cx, hidden, head);
}

}  // namespace nibble::model

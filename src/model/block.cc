#include "model/block.h"

#include <array>
#include <cmath>
#include <cstring>

#include "ops/activation/add.h"
#include "ops/activation/swiglu.h"
#include "ops/attention/attention.h"
#include "ops/conv/conv_silu.h"
#include "ops/gated_delta/delta_gates.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/norm/gated_rms_norm.h"
#include "ops/norm/l2_norm.h"
#include "ops/norm/rms_norm.h"
#include "ops/rope/rope.h"
#include "ops/shape/split.h"

namespace nibble::model {
namespace {

struct Pass {
  Context& cx;
  const Config& c;
  int layer;
  std::span<const Segment> segments;
  const Tap* tap;
  int64_t T;

  Tensor f32(std::initializer_list<int64_t> tail) const {
    Shape shape{T};
    for (int64_t d : tail) shape.push_back(d);
    return cx.arena.f32(shape);
  }
  Tensor project(const Tensor& x, const ops::Linear& w) const {  // [T,in] -> [T,out]
    if (tap != nullptr && tap->linear_input) tap->linear_input(w, x);
    Tensor y = f32({w.out});
    ops::linear(cx, x, w, y);
    return y;
  }
  Tensor norm(const Tensor& x, const Tensor& w) const {
    Tensor y = cx.arena.f32(x.shape());
    ops::rms_norm(cx, x, w, c.norm_eps, ops::Gain::one_plus, y);
    return y;
  }
  // f(layer state, position, rows) for every sequence.
  template <class F>
  void for_each_sequence(F f) const {
    for (const Segment& s : segments) f(s.state->layer(layer), s.state->position(), s.begin, s.end);
  }
};

void full_attention(const Pass& p, const Tensor& n, const AttentionWeights& w, AttentionTrace& t) {
  const Config& c = p.c;
  t.q_raw = p.project(n, w.q_proj);
  if (c.attention_gate) {
    const Tensor both = t.q_raw.reshape({p.T, c.heads, 2 * c.head_dim});
    t.q_raw = p.f32({c.heads, c.head_dim});
    t.gate = p.f32({c.heads, c.head_dim});
    ops::split_heads(p.cx, both, t.q_raw, t.gate);
  }
  t.q_raw = t.q_raw.reshape({p.T, c.heads, c.head_dim});
  t.k_raw = p.project(n, w.k_proj).reshape({p.T, c.kv_heads, c.head_dim});
  t.v = p.project(n, w.v_proj).reshape({p.T, c.kv_heads, c.head_dim});
  t.q = p.norm(t.q_raw, w.q_norm);
  t.k = p.norm(t.k_raw, w.k_norm);

  t.o = p.f32({c.heads, c.head_dim});
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  p.for_each_sequence([&](LayerState& st, int64_t past, int64_t begin, int64_t end) {
    Tensor q = t.q.rows(begin, end), k = t.k.rows(begin, end), o = t.o.rows(begin, end);
    ops::rope(p.cx, q, past, c.rotary_dim, c.rope_theta, q);
    ops::rope(p.cx, k, past, c.rotary_dim, c.rope_theta, k);
    ops::append_kv(p.cx, k, past, st.keys);
    ops::append_kv(p.cx, t.v.rows(begin, end), past, st.values);
    ops::attention(p.cx, q, st.keys, st.values, past, scale, o);
  });
  t.gated = t.o;
  if (c.attention_gate) {
    t.gated = p.f32({c.heads, c.head_dim});
    ops::sigmoid_gate(p.cx, t.o, t.gate, t.gated);
  }
}

void gated_delta_net(const Pass& p, const Tensor& n, const GdnWeights& w, GdnTrace& t) {
  const Config& c = p.c;
  const int64_t Hk = c.key_heads, Hv = c.value_heads, Dk = c.key_head_dim, Dv = c.value_head_dim;
  t.mix = p.project(n, w.in_proj_qkv);
  t.z = p.project(n, w.in_proj_z).reshape({p.T, Hv, Dv});
  t.a = p.project(n, w.in_proj_a);
  t.b = p.project(n, w.in_proj_b);

  const Tensor qkv = p.f32({c.conv_dim()});
  p.for_each_sequence([&](LayerState& st, int64_t, int64_t begin, int64_t end) {
    Tensor y = qkv.rows(begin, end);
    ops::conv_silu(p.cx, t.mix.rows(begin, end), w.conv, st.conv, y);
  });
  std::array<Tensor, 3> parts = {p.f32({Hk * Dk}), p.f32({Hk * Dk}), p.f32({Hv * Dv})};
  ops::split_columns(p.cx, qkv, parts);
  t.q_raw = parts[0].reshape({p.T, Hk, Dk});
  t.k_raw = parts[1].reshape({p.T, Hk, Dk});
  t.v = parts[2].reshape({p.T, Hv, Dv});
  t.q = p.f32({Hk, Dk});
  t.k = p.f32({Hk, Dk});
  ops::l2_norm(p.cx, t.q_raw, kL2Eps, t.q);
  ops::l2_norm(p.cx, t.k_raw, kL2Eps, t.k);

  t.g = p.f32({Hv});
  t.beta = p.f32({Hv});
  ops::delta_gates(p.cx, t.a, t.b, w.a_log, w.dt_bias, t.g, t.beta);
  t.y = p.f32({Hv, Dv});
  const float scale = 1.0f / std::sqrt(static_cast<float>(Dk));
  p.for_each_sequence([&](LayerState& st, int64_t, int64_t b, int64_t e) {
    Tensor y = t.y.rows(b, e);
    ops::gated_delta(p.cx, t.q.rows(b, e), t.k.rows(b, e), t.v.rows(b, e), t.g.rows(b, e), t.beta.rows(b, e), scale,
                     st.S, y);
  });
  t.gated = p.f32({Hv, Dv});
  ops::gated_rms_norm(p.cx, t.y, t.z, w.norm, c.norm_eps, gate_of(c.gate), t.gated);
}

void mlp(const Pass& p, const Tensor& n, const MlpWeights& w, MlpTrace& t) {
  t.gate = p.project(n, w.gate_proj);
  t.up = p.project(n, w.up_proj);
  t.y = p.f32({p.c.intermediate});
  ops::swiglu(p.cx, t.gate, t.up, t.y);
}

}  // namespace

void mixer_forward(Context& cx, const Config& config, const BlockWeights& w, int layer,
                   std::span<const Segment> segments, const Tap* tap, const Tensor& h, BlockTrace& t) {
  const int64_t T = h.dim(0);
  const Pass p{cx, config, layer, segments, tap, T};
  t.n = p.norm(h, w.input_norm);
  if (w.attention) {
    full_attention(p, t.n, *w.attention, t.attention);
    t.h_mid = p.project(t.attention.gated.reshape({T, config.q_dim()}), w.attention->o_proj);
  } else {
    gated_delta_net(p, t.n, *w.gdn, t.gdn);
    t.h_mid = p.project(t.gdn.gated.reshape({T, config.value_dim()}), w.gdn->out_proj);
  }
  ops::add(cx, h, t.h_mid);
}

void mlp_forward(Context& cx, const Config& config, const BlockWeights& w, const Tap* tap, BlockTrace& t, Tensor& h) {
  const Pass p{cx, config, 0, {}, tap, t.h_mid.dim(0)};
  t.n_mid = p.norm(t.h_mid, w.post_norm);
  mlp(p, t.n_mid, w.mlp, t.mlp);
  const Tensor y = p.project(t.mlp.y, w.mlp.down_proj);
  std::memcpy(h.raw(), t.h_mid.raw(), h.bytes());
  ops::add(cx, y, h);
}

void block_forward(Context& cx, const Config& config, const BlockWeights& w, int layer,
                   std::span<const Segment> segments, const Tap* tap, Tensor& h, BlockTrace& t) {
  mixer_forward(cx, config, w, layer, segments, tap, h, t);
  mlp_forward(cx, config, w, tap, t, h);
}

}  // namespace nibble::model

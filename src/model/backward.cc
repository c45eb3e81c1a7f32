#include "model/backward.h"

#include <array>
#include <cmath>
#include <cstring>

#include "ops/activation/add.h"
#include "ops/activation/sigmoid_gate.h"
#include "ops/activation/swiglu.h"
#include "ops/attention/attention.h"
#include "ops/conv/conv_silu.h"
#include "ops/embed/embed.h"
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
  std::span<const Segment> segments;
  int64_t T;
  const GradientTap& tap;

  Tensor f32(std::initializer_list<int64_t> tail) const {
    Shape shape{T};
    for (int64_t d : tail) shape.push_back(d);
    return cx.arena.f32(shape);
  }
  // Where a vector's gradient goes: into `wanted`, or nowhere.
  Tensor sink(const Tensor& wanted, const Tensor& parameter) const {
    return wanted.empty() ? cx.arena.f32(parameter.shape()) : wanted;
  }
  // [T,out] -> [T,in]
  Tensor linear(const Tensor& dy, const Tensor& x, const ops::Linear& w, ops::Linear& dw) const {
    if (tap) tap(w, x.reshape({T, w.in}), dy.reshape({T, w.out}));
    Tensor dx = f32({w.in});
    ops::linear_vjp(cx, dy.reshape({T, w.out}), x.reshape({T, w.in}), w, dx, dw.weight);
    return dx;
  }
  Tensor norm(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& dw) const {
    Tensor dx = cx.arena.f32(x.shape());
    Tensor to = sink(dw, w);
    ops::rms_norm_vjp(cx, dy, x, w, c.norm_eps, ops::Gain::one_plus, dx, to);
    return dx;
  }
};

// dy [T,nh,D], the gradient of o_proj's input -> that of the normed input [T,H].
Tensor full_attention(const Pass& p, const Tensor& dy, const Tensor& n, const AttentionWeights& w,
                      const AttentionTrace& t, AttentionWeights& g) {
  const Config& c = p.c;
  Tensor dout = dy, dgate;
  if (c.attention_gate) {
    dout = p.f32({c.heads, c.head_dim});
    dgate = p.f32({c.heads, c.head_dim});
    ops::sigmoid_gate_vjp(p.cx, dy, t.o, t.gate, dout, dgate);
  }
  const Tensor dq = p.f32({c.heads, c.head_dim}), dk = p.f32({c.kv_heads, c.head_dim}),
               dv = p.f32({c.kv_heads, c.head_dim});
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  for (const Segment& s : p.segments) {
    const int64_t b = s.begin, e = s.end;
    Tensor q = dq.rows(b, e), k = dk.rows(b, e), v = dv.rows(b, e);
    ops::attention_vjp(p.cx, dout.rows(b, e), t.q.rows(b, e), t.k.rows(b, e), t.v.rows(b, e), scale, q, k, v);
    ops::rope_vjp(p.cx, q, 0, c.rotary_dim, c.rope_theta, q);
    ops::rope_vjp(p.cx, k, 0, c.rotary_dim, c.rope_theta, k);
  }
  const Tensor dk_raw = p.norm(dk, t.k_raw, w.k_norm, g.k_norm);
  Tensor dq_raw = p.norm(dq, t.q_raw, w.q_norm, g.q_norm);
  if (c.attention_gate) {
    Tensor both = p.f32({c.heads, 2 * c.head_dim});
    ops::join_heads(p.cx, dq_raw, dgate, both);
    dq_raw = both;
  }
  Tensor dn = p.linear(dq_raw, n, w.q_proj, g.q_proj);
  ops::add(p.cx, p.linear(dk_raw, n, w.k_proj, g.k_proj), dn);
  ops::add(p.cx, p.linear(dv, n, w.v_proj, g.v_proj), dn);
  return dn;
}

// dy [T,Hv,Dv], the gradient of out_proj's input -> that of the normed input [T,H].
Tensor gated_delta_net(const Pass& p, const Tensor& dy, const Tensor& n, const GdnWeights& w, const GdnTrace& t,
                       GdnWeights& g) {
  const Config& c = p.c;
  const int64_t Hk = c.key_heads, Hv = c.value_heads, Dk = c.key_head_dim, Dv = c.value_head_dim;
  Tensor dy_rule = p.f32({Hv, Dv}), dz = p.f32({Hv, Dv}), dnorm = p.sink(g.norm, w.norm);
  ops::gated_rms_norm_vjp(p.cx, dy, t.y, t.z, w.norm, c.norm_eps, gate_of(c.gate), dy_rule, dz, dnorm);

  Tensor dq = p.f32({Hk, Dk}), dk = p.f32({Hk, Dk}), dv = p.f32({Hv, Dv}), dg = p.f32({Hv}), dbeta = p.f32({Hv});
  const float scale = 1.0f / std::sqrt(static_cast<float>(Dk));
  for (const Segment& s : p.segments) {
    const int64_t b = s.begin, e = s.end;
    Tensor q = dq.rows(b, e), k = dk.rows(b, e), v = dv.rows(b, e), g_rows = dg.rows(b, e), beta = dbeta.rows(b, e);
    Tensor no_state;
    ops::gated_delta_vjp(p.cx, dy_rule.rows(b, e), t.q.rows(b, e), t.k.rows(b, e), t.v.rows(b, e), t.g.rows(b, e),
                         t.beta.rows(b, e), scale, {}, {}, q, k, v, g_rows, beta, no_state);
  }
  Tensor da = p.f32({Hv}), db = p.f32({Hv}), da_log = p.sink(g.a_log, w.a_log), ddt = p.sink(g.dt_bias, w.dt_bias);
  ops::delta_gates_vjp(p.cx, dg, dbeta, t.a, t.b, w.a_log, w.dt_bias, da, db, da_log, ddt);

  ops::l2_norm_vjp(p.cx, dq, t.q_raw, kL2Eps, dq);
  ops::l2_norm_vjp(p.cx, dk, t.k_raw, kL2Eps, dk);
  Tensor dqkv = p.f32({c.conv_dim()}), dmix = p.f32({c.conv_dim()}), dconv = p.sink(g.conv, w.conv);
  const std::array<Tensor, 3> parts = {dq.reshape({p.T, Hk * Dk}), dk.reshape({p.T, Hk * Dk}),
                                       dv.reshape({p.T, Hv * Dv})};
  ops::join_columns(p.cx, parts, dqkv);
  Tensor no_history = p.cx.arena.f32({c.conv_kernel - 1, c.conv_dim()});
  std::memset(no_history.raw(), 0, no_history.bytes());
  for (const Segment& s : p.segments) {
    Tensor dmix_rows = dmix.rows(s.begin, s.end);
    ops::conv_silu_vjp(p.cx, dqkv.rows(s.begin, s.end), t.mix.rows(s.begin, s.end), w.conv, no_history, dmix_rows,
                       dconv);
  }
  Tensor dn = p.linear(dmix, n, w.in_proj_qkv, g.in_proj_qkv);
  ops::add(p.cx, p.linear(dz, n, w.in_proj_z, g.in_proj_z), dn);
  ops::add(p.cx, p.linear(da, n, w.in_proj_a, g.in_proj_a), dn);
  ops::add(p.cx, p.linear(db, n, w.in_proj_b, g.in_proj_b), dn);
  return dn;
}

// dy [T,H], the gradient of the MLP's output -> that of its normed input.
Tensor mlp(const Pass& p, const Tensor& dy, const Tensor& n, const MlpWeights& w, const MlpTrace& t, MlpWeights& g) {
  const Tensor dact = p.linear(dy, t.y, w.down_proj, g.down_proj);
  Tensor dgate = p.f32({p.c.intermediate}), dup = p.f32({p.c.intermediate});
  ops::swiglu_vjp(p.cx, dact, t.gate, t.up, dgate, dup);
  Tensor dn = p.linear(dgate, n, w.gate_proj, g.gate_proj);
  ops::add(p.cx, p.linear(dup, n, w.up_proj, g.up_proj), dn);
  return dn;
}

}  // namespace

void block_vjp(Context& cx, const Config& config, const BlockWeights& w, std::span<const Segment> segments,
               const Tensor& h_in, const BlockTrace& t, BlockWeights& g, Tensor& dh, const GradientTap& tap) {
  const int64_t T = dh.dim(0);
  const Pass p{cx, config, segments, T, tap};
  const Tensor dn_mid = mlp(p, dh, t.n_mid, w.mlp, t.mlp, g.mlp);
  ops::add(cx, p.norm(dn_mid, t.h_mid, w.post_norm, g.post_norm), dh);

  Tensor dn;
  if (w.attention) {
    const Tensor dmixed = p.linear(dh, t.attention.gated, w.attention->o_proj, g.attention->o_proj);
    dn = full_attention(p, dmixed.reshape({T, config.heads, config.head_dim}), t.n, *w.attention, t.attention,
                        *g.attention);
  } else {
    const Tensor dmixed = p.linear(dh, t.gdn.gated, w.gdn->out_proj, g.gdn->out_proj);
    dn = gated_delta_net(p, dmixed.reshape({T, config.value_heads, config.value_head_dim}), t.n, *w.gdn, t.gdn, *g.gdn);
  }
  ops::add(cx, p.norm(dn, h_in, w.input_norm, g.input_norm), dh);
}

Status backward(Context& cx, const Weights& weights, std::span<const int32_t> ids, std::span<const Segment> segments,
                const Tape& tape, Tensor& dhidden, Gradients& gradients, const GradientTap& tap) {
  const Config& c = weights.config;
  const Arena::Scope scope(cx.arena);
  for (const Segment& s : segments) s.state->reset();

  const Pass p{cx, c, segments, dhidden.dim(0), tap};
  Tensor dh = p.norm(dhidden, tape.border.back(), weights.final_norm, gradients.final_norm);
  for (int i = static_cast<int>(c.layers); i-- > 0;) {
    if (cx.cancel.cancelled()) return cancelled("backward: stopped at layer {} of {}", i, c.layers);
    const Arena::Scope layer_scope(cx.arena);
    const auto at = static_cast<size_t>(i);
    BlockTrace trace;
    if (tape.keep_traces) {
      trace = tape.traces[at];
    } else {
      Tensor h = cx.arena.f32(dh.shape());
      std::memcpy(h.raw(), tape.border[at].raw(), h.bytes());
      block_forward(cx, c, weights.blocks[at], i, segments, nullptr, h, trace);
    }
    block_vjp(cx, c, weights.blocks[at], segments, tape.border[at], trace, gradients.blocks[at], dh, tap);
  }
  if (!gradients.embed.empty()) ops::embed_vjp(cx, dh, ids, gradients.embed);
  return {};
}

}  // namespace nibble::model

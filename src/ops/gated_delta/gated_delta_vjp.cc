#include <algorithm>

#include "ops/backend.h"
#include "ops/gated_delta/gated_delta.h"
#include "ops/gated_delta/gated_delta_vjp_cpu.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

void check(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g, const Tensor& beta,
           const Tensor& S0, const Tensor& dS_T, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dg,
           const Tensor& dbeta, const Tensor& dS0) {
  NIBBLE_CHECK(q.rank() == 3 && k.shape() == q.shape() && dq.shape() == q.shape() && dk.shape() == q.shape());
  NIBBLE_CHECK(v.rank() == 3 && v.dim(0) == q.dim(0) && dy.shape() == v.shape() && dv.shape() == v.shape());
  NIBBLE_CHECK(g.shape() == Shape({v.dim(0), v.dim(1)}) && beta.shape() == g.shape());
  NIBBLE_CHECK(dg.shape() == g.shape() && dbeta.shape() == g.shape());
  NIBBLE_CHECK(q.dim(1) > 0 && v.dim(1) % q.dim(1) == 0 && q.dim(2) % 16 == 0 && v.dim(2) % 16 == 0);
  for (const Tensor* state : {&S0, &dS_T, &dS0}) {
    NIBBLE_CHECK(state->empty() || state->shape() == Shape({v.dim(1), q.dim(2), v.dim(2)}));
  }
}

void copy_or_zero(const float* from, int64_t n, float* to) {
  if (from != nullptr) {
    std::copy_n(from, n, to);
  } else {
    std::fill_n(to, n, 0.0f);
  }
}

/// One value head over a whole sequence.
struct Sequence {
  DeltaHeadVjp first;      // the operands at row 0; head.rows = T, head.state and dS are not set
  const float *S0, *dS_T;  // [Dk,Dv] or null
  float* dS0;              // likewise

  int64_t cells() const { return first.head.key_size * first.head.value_size; }
  int64_t tiles() const { return (first.head.rows + kDeltaTile - 1) / kDeltaTile; }
  /// The state before a tile, then its tape.
  int64_t tile_floats() const { return cells() + delta_tape_floats(first.head.value_size); }
  int64_t work_floats() const {
    return std::max(delta_chunk_vjp_floats(first.head.key_size, first.head.value_size),
                    delta_recurrent_vjp_floats(kRecurrentRows, first.head.key_size, first.head.value_size));
  }
  int64_t scratch_floats() const { return tiles() * tile_floats() + cells() + work_floats(); }

  DeltaHeadVjp tile(int64_t index, float* state, float* dS) const {
    const int64_t row = index * kDeltaTile;
    DeltaHeadVjp t = first;
    t.head.rows = std::min(kDeltaTile, first.head.rows - row);
    t.head.q += row * t.head.key_stride, t.head.k += row * t.head.key_stride;
    t.head.v += row * t.head.value_stride;
    t.head.g += row * t.head.gate_stride, t.head.beta += row * t.head.gate_stride;
    t.head.state = state;
    t.dy += row * t.head.value_stride, t.dv += row * t.head.value_stride;
    t.dq += row * t.dkey_stride, t.dk += row * t.dkey_stride;
    t.dg += row * t.head.gate_stride, t.dbeta += row * t.head.gate_stride;
    t.dS = dS;
    return t;
  }

  void run(float* scratch) const {
    const int64_t count = tiles();
    float *const dS = scratch + count * tile_floats(), *const work = dS + cells();
    const auto state_at = [&](int64_t i) { return scratch + i * tile_floats(); };
    const auto tape_at = [&](int64_t i) { return state_at(i) + cells(); };
    if (count > 0) copy_or_zero(S0, cells(), state_at(0));
    for (int64_t i = 0; i < count; ++i) {
      const DeltaHead head = tile(i, state_at(i), dS).head;
      // Only the last tile can be that short, and nobody asks for the state after it.
      if (head.rows <= kRecurrentRows) break;
      gated_delta_chunk_tape_cpu(head, i + 1 < count ? state_at(i + 1) : nullptr, tape_at(i), work);
    }
    copy_or_zero(dS_T, cells(), dS);
    for (int64_t i = count - 1; i >= 0; --i) {
      const DeltaHeadVjp t = tile(i, state_at(i), dS);
      if (t.head.rows <= kRecurrentRows) {
        gated_delta_recurrent_vjp_cpu(t, work);
      } else {
        gated_delta_chunk_vjp_cpu(t, tape_at(i), work);
      }
    }
    if (dS0 != nullptr) std::copy_n(dS, cells(), dS0);
  }
};

/// to[t,kh,:] = the sum over the value heads of a key head, in their order.
void sum_groups(Context& cx, const float* from, int64_t group, int64_t key_size, Tensor& to) {
  const int64_t items = to.dim(0) * to.dim(1);
  float* out = to.f32();
  cx.pool.parallel_for(items, row_grain(group * key_size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* part = from + i * group * key_size;
      std::copy_n(part, key_size, out + i * key_size);
      for (int64_t h = 1; h < group; ++h) {
        for (int64_t j = 0; j < key_size; ++j) out[i * key_size + j] += part[h * key_size + j];
      }
    }
  });
}

}  // namespace

void gated_delta_vjp(Context& cx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                     const Tensor& beta, float scale, const Tensor& S0, const Tensor& dS_T, Tensor& dq, Tensor& dk,
                     Tensor& dv, Tensor& dg, Tensor& dbeta, Tensor& dS0) {
  require_cpu("gated_delta_vjp", dy);
  check(dy, q, k, v, g, beta, S0, dS_T, dq, dk, dv, dg, dbeta, dS0);
  const int64_t tokens = v.dim(0), heads = v.dim(1), value_size = v.dim(2), key_heads = q.dim(1), key_size = q.dim(2);
  const int64_t group = heads / key_heads, cells = key_size * value_size;
  const Arena::Scope scope(cx.arena);
  const Shape per_head{tokens, heads, key_size};
  const Tensor dq_heads = group == 1 ? dq : cx.arena.f32(per_head), dk_heads = group == 1 ? dk : cx.arena.f32(per_head);

  const auto sequence_of = [&](int64_t h) {
    const DeltaHead head{.rows = tokens,
                         .key_size = key_size,
                         .value_size = value_size,
                         .q = q.f32() + h / group * key_size,
                         .k = k.f32() + h / group * key_size,
                         .key_stride = key_heads * key_size,
                         .v = v.f32() + h * value_size,
                         .y = nullptr,
                         .value_stride = heads * value_size,
                         .g = g.f32() + h,
                         .beta = beta.f32() + h,
                         .gate_stride = heads,
                         .scale = scale,
                         .state = nullptr};
    const auto state_of = [&](const Tensor& states) { return states.empty() ? nullptr : states.f32() + h * cells; };
    return Sequence{.first = {.head = head,
                              .dy = dy.f32() + h * value_size,
                              .dq = dq_heads.f32() + h * key_size,
                              .dk = dk_heads.f32() + h * key_size,
                              .dkey_stride = heads * key_size,
                              .dv = dv.f32() + h * value_size,
                              .dg = dg.f32() + h,
                              .dbeta = dbeta.f32() + h,
                              .dS = nullptr},
                    .S0 = state_of(S0),
                    .dS_T = state_of(dS_T),
                    .dS0 = state_of(dS0)};
  };
  const int64_t cost = (tokens + 1) * (key_size + kDeltaTile) * (value_size + key_size);
  for_each_item(cx, heads, cost, sequence_of(0).scratch_floats(),
                [&](int64_t h, float* scratch) { sequence_of(h).run(scratch); });
  if (group == 1) return;
  sum_groups(cx, dq_heads.f32(), group, key_size, dq);
  sum_groups(cx, dk_heads.f32(), group, key_size, dk);
}

}  // namespace nibble::ops

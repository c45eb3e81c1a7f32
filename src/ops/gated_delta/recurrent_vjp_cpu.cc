// The recurrence backwards. States before every token are recomputed into scratch first.
#include <algorithm>
#include <cmath>

#include "ops/gated_delta/gated_delta_vjp_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_delta/recurrent_vjp_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

HWY_INLINE V load(const float* p) {
  return hn::LoadU(D(), p);
}
HWY_INLINE void add_product(V a, const float* b, float* sum) {
  hn::StoreU(hn::MulAdd(a, load(b), load(sum)), D(), sum);
}

/// What a token writes along its key: d = beta (v - S~^T k), and v - S~^T k itself. `state` is S before the token.
void written(const DeltaHead& h, int64_t t, const float* state, float* missing, float* d) {
  const float* k = h.k + t * h.key_stride;
  const V decay = hn::Set(D(), -std::exp(h.g[t * h.gate_stride])), beta = hn::Set(D(), h.beta[t * h.gate_stride]);
  std::copy_n(h.v + t * h.value_stride, h.value_size, missing);
  for (int64_t i = 0; i < h.key_size; ++i) {
    const V factor = hn::Mul(decay, hn::Set(D(), k[i]));
    const float* row = state + i * h.value_size;
    for (int64_t j = 0; j < h.value_size; j += kLanes) add_product(factor, row + j, missing + j);
  }
  map(missing, d, h.value_size, [&](V x) HWY_ATTR { return hn::Mul(beta, x); });
}

void advance(const DeltaHead& h, int64_t t, const float* state, const float* d, float* next) {
  const float* k = h.k + t * h.key_stride;
  const V decay = hn::Set(D(), std::exp(h.g[t * h.gate_stride]));
  for (int64_t i = 0; i < h.key_size; ++i) {
    const V key = hn::Set(D(), k[i]);
    for (int64_t j = 0; j < h.value_size; j += kLanes) {
      const int64_t at = i * h.value_size + j;
      hn::StoreU(hn::MulAdd(key, load(d + j), hn::Mul(decay, load(state + at))), D(), next + at);
    }
  }
}

/// Token t, given S before it: L = tile.dS comes as the gradient of S after it.
void step_back(const DeltaHeadVjp& tile, int64_t t, const float* state, float* row_scratch) {
  const DeltaHead& h = tile.head;
  const int64_t n = h.value_size, gate = t * h.gate_stride;
  const float *q = h.q + t * h.key_stride, *k = h.k + t * h.key_stride, *dy = tile.dy + t * h.value_stride;
  float *missing = row_scratch, *d = missing + n, *dd = d + n, *dp = dd + n;
  float *dq = tile.dq + t * tile.dkey_stride, *dk = tile.dk + t * tile.dkey_stride, *dv = tile.dv + t * h.value_stride;
  written(h, t, state, missing, d);
  const float decay = std::exp(h.g[gate]), beta = h.beta[gate];
  const V e = hn::Set(D(), decay);

  std::fill_n(dd, n, 0.0f);
  for (int64_t i = 0; i < h.key_size; ++i) {  // dq = scale S dy;  L += scale q dy^T;  dd = L^T k
    const V key = hn::Set(D(), k[i]), query = hn::Set(D(), h.scale * q[i]);
    const float* s = state + i * n;
    float* L = tile.dS + i * n;
    V sum = hn::Zero(D());
    for (int64_t j = 0; j < n; j += kLanes) {
      const V grad = load(dy + j), after = hn::MulAdd(key, load(d + j), hn::Mul(e, load(s + j)));
      sum = hn::MulAdd(after, grad, sum);
      const V l = hn::MulAdd(query, grad, load(L + j));
      hn::StoreU(l, D(), L + j);
      hn::StoreU(hn::MulAdd(key, l, load(dd + j)), D(), dd + j);
    }
    dq[i] = h.scale * sum_lanes(sum);
  }
  V strength = hn::Zero(D());
  for (int64_t j = 0; j < n; j += kLanes) {
    const V grad = hn::Mul(hn::Set(D(), beta), load(dd + j));
    strength = hn::MulAdd(load(dd + j), load(missing + j), strength);
    hn::StoreU(grad, D(), dv + j);
    hn::StoreU(hn::Neg(grad), D(), dp + j);
  }
  tile.dbeta[gate] = sum_lanes(strength);
  V forgotten = hn::Zero(D());
  for (int64_t i = 0; i < h.key_size; ++i) {  // dk = L d + S~ dp;  L~ = L + k dp^T;  dg = <L~, S~>;  L = e^g L~
    const V key = hn::Set(D(), k[i]);
    const float* s = state + i * n;
    float* L = tile.dS + i * n;
    V sum = hn::Zero(D());
    for (int64_t j = 0; j < n; j += kLanes) {
      const V l = load(L + j), kept = hn::Mul(e, load(s + j)), change = load(dp + j);
      sum = hn::MulAdd(l, load(d + j), hn::MulAdd(kept, change, sum));
      const V before = hn::MulAdd(key, change, l);
      forgotten = hn::MulAdd(before, kept, forgotten);
      hn::StoreU(hn::Mul(e, before), D(), L + j);
    }
    dk[i] = sum_lanes(sum);
  }
  tile.dg[gate] = sum_lanes(forgotten);
}

void recurrent_vjp(const DeltaHeadVjp& tile, float* scratch) {
  const DeltaHead& h = tile.head;
  const int64_t cells = h.key_size * h.value_size;
  float* const row_scratch = scratch + h.rows * cells;
  std::copy_n(h.state, cells, scratch);
  for (int64_t t = 0; t + 1 < h.rows; ++t) {
    float *missing = row_scratch, *d = row_scratch + h.value_size, *state = scratch + t * cells;
    written(h, t, state, missing, d);
    advance(h, t, state, d, state + cells);
  }
  for (int64_t t = h.rows - 1; t >= 0; --t) step_back(tile, t, scratch + t * cells, row_scratch);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(recurrent_vjp);

void gated_delta_recurrent_vjp_cpu(const DeltaHeadVjp& tile, float* scratch) {
  HWY_DYNAMIC_DISPATCH(recurrent_vjp)(tile, scratch);
}

}  // namespace nibble::ops
#endif

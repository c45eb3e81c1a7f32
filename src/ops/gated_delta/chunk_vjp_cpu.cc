// The chunked form backwards. With Z = V - diag(e^G) K S the forward of chunk_cpu.cc is V' = T diag(beta) Z, and its
// gradient, dS being that of the state after the chunk and s the scale:
//   dV' = P^T dY + diag(e^{G_L - G}) K dS              P_ij = s (q_i . k_j) Gamma_ij, i >= j
//   E   = dY V'^T                                      F = s Gamma o E
//   dQ  = s diag(e^G) dY S^T + F K
//   R   = T^T dV'                                      N = -Gamma o (diag(beta) R V'^T), i > j
//   dV  = diag(beta) R                                 dbeta = rowsum(R o Z) - rowsum(R V'^T o Gamma o K K^T)
//   dK  = H + F^T Q - diag(beta e^G) R S^T + (N + N^T) K        H = diag(e^{G_L - G}) V' dS^T
//   dS  = e^{G_L} dS + Q^T diag(s e^G) dY - K^T diag(beta e^G) R
// This is the WY backward with W and U eliminated: X = T^T dW = -R S^T and X W^T + R U^T = R V'^T.
//
// dg counts what crosses token t, so nothing cancels, and it is exactly 0 where nothing was there to decay:
//   dg_t = e^{G_L} <S, dS> + sum_{i>=t} b_i + sum_{j<t} <H_j, k_j> + sum_{i>=t>j} (E o P - diag(beta) R V'^T o B)_ij
//   b_i  = s e^{G_i} <(dY S^T)_i, q_i> - beta_i e^{G_i} <(R S^T)_i, k_i>          B = Gamma o K K^T, i > j
#include <algorithm>

#include "base/check.h"
#include "ops/gated_delta/gated_delta_vjp_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_delta/chunk_vjp_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/gated_delta/chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// Hands out pieces of scratch.
struct Pieces {
  float* next;
  float* take(int64_t floats) {
    float* p = next;
    next += floats;
    return p;
  }
};

int64_t padded_rows(const DeltaHead& head) {
  return (head.rows + 15) / 16 * 16;
}

template <class Tape>  // float* or const float*
struct TapeView {
  TapeView(Tape tape, int64_t n, int64_t dv)
      : inverse(tape), b(inverse + n * n), written(b + n * n), missing(written + n * dv) {}
  Tape inverse, b;        // [L,L] T and B
  Tape written, missing;  // [L,Dv] V' and Z
};

/// C = A B, C without gaps.
void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, float* c) {
  std::fill_n(c, m * n, 0.0f);
  multiply(m, n, k, a, a_row, a_col, b, n, c, n);
}

/// out = factor * a o b, n floats.
HWY_INLINE void scaled_product(float factor, const float* a, const float* b, float* out, int64_t n) {
  const V f = hn::Set(D(), factor);
  map(a, b, out, n, [&](V x, V y) HWY_ATTR { return hn::Mul(hn::Mul(f, x), y); });
}

void chunk_tape(const DeltaHead& head, float* next_state, float* tape, float* scratch) {
  const int64_t n = padded_rows(head), dk = head.key_size, dv = head.value_size;
  Pieces pieces{scratch};
  float *k = pieces.take(n * dk), *k_transposed = pieces.take(n * dk), *strong = pieces.take(n * dv);
  float *a = pieces.take(n * n), *gamma = pieces.take(n * n);
  const TapeView<float*> out(tape, n, dv);
  RowFactors f;
  gather_rows(head.k, head.key_stride, head.rows, n, dk, k);
  gather_rows(head.v, head.value_stride, head.rows, n, dv, out.missing);
  decays(head, n, f, gamma);

  transpose(n, dk, k, dk, k_transposed);
  product(n, n, dk, k, dk, 1, k_transposed, out.b);
  for (int64_t i = 0; i < n; ++i) {
    scaled_product(1, out.b + i * n, gamma + i * n, out.b + i * n, n);
    out.b[i * n + i] = 0;
    scale_row(out.b + i * n, f.beta[i], a + i * n, n);
  }
  invert(n, a, out.inverse);

  product(n, dv, dk, k, dk, 1, head.state, strong);  // K S
  for (int64_t i = 0; i < n; ++i) {
    float *missing = out.missing + i * dv, *row = strong + i * dv;
    const V decay = hn::Set(D(), f.from_start[i]), beta = hn::Set(D(), f.beta[i]);
    map(row, missing, missing, dv, [&](V read, V value) HWY_ATTR { return hn::NegMulAdd(decay, read, value); });
    map(missing, row, dv, [&](V z) HWY_ATTR { return hn::Mul(beta, z); });
  }
  product(n, dv, n, out.inverse, n, 1, strong, out.written);
  if (next_state == nullptr) return;
  for (int64_t i = 0; i < n; ++i) scale_row(k + i * dk, f.to_end[i], k + i * dk, dk);
  scale_row(head.state, f.from_start[n - 1], next_state, dk * dv);
  multiply(dk, dv, n, k, 1, dk, out.written, dv, next_state, dv);
}

/// dg from delta = e^{G_L} <S, dS>, b_i, c_j = <H_j, k_j> and the pairs [n,n], all by their definition above.
void crossing_sums(const DeltaHeadVjp& tile, int64_t n, float delta, const float* b, const float* c,
                   const float* pairs) {
  double crossing[kDeltaTile] = {};
  for (int64_t i = 1; i < tile.head.rows; ++i) {
    double before = 0;  // sum_{j<t} pairs_ij
    for (int64_t t = 1; t <= i; ++t) crossing[t] += before += static_cast<double>(pairs[i * n + t - 1]);
  }
  double later = 0, earlier = 0;
  for (int64_t t = tile.head.rows - 1; t >= 0; --t) crossing[t] += later += static_cast<double>(b[t]);
  for (int64_t t = 0; t < tile.head.rows; ++t) {
    tile.dg[t * tile.head.gate_stride] = static_cast<float>(static_cast<double>(delta) + crossing[t] + earlier);
    earlier += static_cast<double>(c[t]);
  }
}

void chunk_vjp(const DeltaHeadVjp& tile, const float* tape, float* scratch) {
  const DeltaHead& head = tile.head;
  const int64_t n = padded_rows(head), dk = head.key_size, dv = head.value_size;
  Pieces pieces{scratch};
  float *q = pieces.take(n * dk), *k = pieces.take(n * dk), *k_transposed = pieces.take(n * dk);
  float *dq = pieces.take(n * dk), *dkeys = pieces.take(n * dk), *from_state = pieces.take(n * dk);
  float *dy = pieces.take(n * dv), *written_transposed = pieces.take(n * dv), *dwritten = pieces.take(n * dv);
  float *r = pieces.take(n * dv), *p = pieces.take(n * n), *e = pieces.take(n * n), *gamma = pieces.take(n * n);
  float *pairs = pieces.take(n * n), *between = pieces.take(n * n);
  float *state_transposed = pieces.take(dk * dv), *dS_transposed = pieces.take(dk * dv);
  NIBBLE_CHECK(pieces.next - scratch <= delta_chunk_vjp_floats(dk, dv));
  const TapeView<const float*> kept(tape, n, dv);
  float b[kDeltaTile], c[kDeltaTile];
  RowFactors f;
  gather_rows(head.q, head.key_stride, head.rows, n, dk, q);
  gather_rows(head.k, head.key_stride, head.rows, n, dk, k);
  gather_rows(tile.dy, head.value_stride, head.rows, n, dv, dy);
  decays(head, n, f, gamma);
  transpose(n, dk, k, dk, k_transposed);
  transpose(n, dv, kept.written, dv, written_transposed);
  transpose(dk, dv, head.state, dv, state_transposed);
  transpose(dk, dv, tile.dS, dv, dS_transposed);

  product(n, n, dk, q, dk, 1, k_transposed, p);
  for (int64_t i = 0; i < n; ++i) scaled_product(head.scale, p + i * n, gamma + i * n, p + i * n, n);
  product(n, dv, dk, k, dk, 1, tile.dS, dwritten);
  for (int64_t i = 0; i < n; ++i) scale_row(dwritten + i * dv, f.to_end[i], dwritten + i * dv, dv);
  multiply(n, dv, n, p, 1, n, dy, dv, dwritten, dv);

  product(n, n, dv, dy, dv, 1, written_transposed, e);
  scaled_product(1, e, p, pairs, n * n);
  scaled_product(head.scale, e, gamma, e, n * n);  // F
  product(n, dk, dv, dy, dv, 1, state_transposed, dq);
  product(n, dk, dv, kept.written, dv, 1, dS_transposed, dkeys);
  for (int64_t i = 0; i < n; ++i) {
    scale_row(dq + i * dk, head.scale * f.from_start[i], dq + i * dk, dk);
    scale_row(dkeys + i * dk, f.to_end[i], dkeys + i * dk, dk);  // H
    b[i] = dot(dq + i * dk, q + i * dk, dk);
    c[i] = dot(dkeys + i * dk, k + i * dk, dk);
  }
  multiply(n, dk, n, e, n, 1, k, dk, dq, dk);
  multiply(n, dk, n, e, 1, n, q, dk, dkeys, dk);

  product(n, dv, n, kept.inverse, 1, n, dwritten, r);
  product(n, n, dv, r, dv, 1, written_transposed, e);
  product(n, dk, dv, r, dv, 1, state_transposed, from_state);
  for (int64_t i = 0; i < n; ++i) {
    const float beta = f.beta[i], reach = -beta * f.from_start[i];
    const float dbeta = dot(r + i * dv, kept.missing + i * dv, dv) - dot(e + i * n, kept.b + i * n, n);
    if (i < head.rows) tile.dbeta[i * head.gate_stride] = dbeta;
    b[i] += reach * dot(from_state + i * dk, k + i * dk, dk);
    const V factor = hn::Set(D(), reach), strength = hn::Set(D(), -beta);
    float* to = dkeys + i * dk;
    map(from_state + i * dk, to, to, dk, [&](V x, V sum) HWY_ATTR { return hn::MulAdd(factor, x, sum); });
    float *row = e + i * n, *pair = pairs + i * n;
    map(row, kept.b + i * n, pair, pair, n,
        [&](V x, V product_of_keys, V sum) HWY_ATTR { return hn::MulAdd(hn::Mul(strength, x), product_of_keys, sum); });
    scaled_product(-beta, row, gamma + i * n, row, n);  // N and, not used, what lies on the diagonal
  }
  for (int64_t i = 0; i < n; ++i) {
    between[i * n + i] = 0;
    for (int64_t j = 0; j < i; ++j) between[i * n + j] = between[j * n + i] = e[i * n + j];
  }
  multiply(n, dk, n, between, n, 1, k, dk, dkeys, dk);
  crossing_sums(tile, n, f.from_start[n - 1] * dot(head.state, tile.dS, dk * dv), b, c, pairs);

  for (int64_t i = 0; i < head.rows; ++i) {
    std::copy_n(dq + i * dk, dk, tile.dq + i * tile.dkey_stride);
    std::copy_n(dkeys + i * dk, dk, tile.dk + i * tile.dkey_stride);
    scale_row(r + i * dv, f.beta[i], tile.dv + i * head.value_stride, dv);
  }
  for (int64_t i = 0; i < n; ++i) {
    scale_row(q + i * dk, head.scale * f.from_start[i], q + i * dk, dk);
    scale_row(k + i * dk, -f.beta[i] * f.from_start[i], k + i * dk, dk);
  }
  scale_row(tile.dS, f.from_start[n - 1], tile.dS, dk * dv);
  multiply(dk, dv, n, q, 1, dk, dy, dv, tile.dS, dv);
  multiply(dk, dv, n, k, 1, dk, r, dv, tile.dS, dv);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(chunk_tape);
HWY_EXPORT(chunk_vjp);

void gated_delta_chunk_tape_cpu(const DeltaHead& head, float* next_state, float* tape, float* scratch) {
  HWY_DYNAMIC_DISPATCH(chunk_tape)(head, next_state, tape, scratch);
}
void gated_delta_chunk_vjp_cpu(const DeltaHeadVjp& tile, const float* tape, float* scratch) {
  HWY_DYNAMIC_DISPATCH(chunk_vjp)(tile, tape, scratch);
}

}  // namespace nibble::ops
#endif

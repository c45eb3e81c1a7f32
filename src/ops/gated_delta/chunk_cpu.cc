// The chunked (WY) form. With rows i = 1..L of one chunk, G_i = g_1 + .. + g_i and Gamma_ij = exp(G_i - G_j), i >= j:
//   A_ij = beta_i (k_i . k_j) Gamma_ij, i > j            T = (I + A)^-1
//   U = T diag(beta) V        W = T diag(beta e^G) K     V' = U - W S
//   Y = scale (diag(e^G) Q S + P V')                     P_ij = (q_i . k_j) Gamma_ij, i >= j
//   S = e^{G_L} S + (diag(e^{G_L - G}) K)^T V'
// (Yang et al., "Gated Delta Networks", 2025.) Rows are padded to a multiple of 16 with k = q = v = 0, beta = 0 and
// g = 0, which change nothing.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "ops/gated_delta/gated_delta_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_delta/chunk_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/matrix-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// Where things lie in scratch; L is the padded number of rows, at most kDeltaTile.
struct Chunk {
  Chunk(const DeltaHead& head, float* scratch)
      : rows(head.rows), padded((head.rows + 15) / 16 * 16), dk(head.key_size), dv(head.value_size) {
    float* next = scratch;
    const auto take = [&](int64_t floats) {
      float* p = next;
      next += floats;
      return p;
    };
    constexpr int64_t kC = kDeltaTile;
    k = take(kC * dk), k_transposed = take(kC * dk), q = take(kC * dk), w = take(kC * dk), scaled_k = take(kC * dk);
    u = take(kC * dv), scaled_v = take(kC * dv), y = take(kC * dv);
    a = take(kC * kC), inverse = take(kC * kC), p = take(kC * kC), gamma = take(kC * kC);
    NIBBLE_CHECK(next - scratch == delta_chunk_floats(dk, dv));
  }

  int64_t rows, padded, dk, dv;
  float *k, *k_transposed, *q, *w, *scaled_k;  // [L,Dk], k_transposed [Dk,L]
  float *u, *scaled_v, *y;                     // [L,Dv]
  float *a, *inverse, *p, *gamma;              // [L,L]
  float from_start[kDeltaTile];                // exp(G_i)
  float to_end[kDeltaTile];                    // exp(G_L - G_i)
  float beta[kDeltaTile];
};

/// n floats: out = factor * in.
HWY_INLINE void scale_row(const float* in, float factor, float* out, int64_t n) {
  const V f = hn::Set(D(), factor);
  for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Mul(f, hn::LoadU(D(), in + i)), D(), out + i);
}

void gather_rows(const float* from, int64_t stride, int64_t rows, int64_t padded, int64_t n, float* to) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, n, to + i * n);
  std::fill(to + rows * n, to + padded * n, 0.0f);
}

/// gamma, from_start, to_end and beta. G is summed in f64: a token of g = -60 would otherwise cost every later
/// difference in the chunk its low bits. Differences before exp: exp(-G_j) alone overflows.
void decays(const DeltaHead& head, Chunk& c) {
  double cumulative[kDeltaTile], sum = 0;
  for (int64_t i = 0; i < c.padded; ++i) {
    if (i < c.rows) sum += static_cast<double>(head.g[i * head.gate_stride]);
    cumulative[i] = sum;
    c.beta[i] = i < c.rows ? head.beta[i * head.gate_stride] : 0.0f;
  }
  constexpr float kNever = -200;  // exp of it is 0: what lies above the diagonal
  for (int64_t i = 0; i < c.padded; ++i) {
    c.from_start[i] = std::exp(static_cast<float>(cumulative[i]));
    c.to_end[i] = std::exp(static_cast<float>(sum - cumulative[i]));
    float* row = c.gamma + i * c.padded;
    for (int64_t j = 0; j < c.padded; ++j) row[j] = j <= i ? static_cast<float>(cumulative[i] - cumulative[j]) : kNever;
    for (int64_t j = 0; j < c.padded; j += kLanes) hn::StoreU(hn::Exp(D(), hn::LoadU(D(), row + j)), D(), row + j);
  }
}

/// a = beta_i (k_i . k_j) Gamma_ij below the diagonal and p = scale (q_i . k_j) Gamma_ij up to it, 0 elsewhere.
void pair_products(float scale, Chunk& c) {
  const int64_t n = c.padded;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < c.dk; ++j) c.k_transposed[j * n + i] = c.k[i * c.dk + j];
  }
  std::fill_n(c.a, n * n, 0.0f);
  std::fill_n(c.p, n * n, 0.0f);
  multiply(n, n, c.dk, c.k, c.dk, 1, c.k_transposed, n, c.a, n);
  multiply(n, n, c.dk, c.q, c.dk, 1, c.k_transposed, n, c.p, n);
  for (int64_t i = 0; i < n; ++i) {
    const V strength = hn::Set(D(), c.beta[i]), query_scale = hn::Set(D(), scale);
    for (int64_t j = 0; j < n; j += kLanes) {
      const V gamma = hn::LoadU(D(), c.gamma + i * n + j);
      float *a = c.a + i * n + j, *p = c.p + i * n + j;
      hn::StoreU(hn::Mul(hn::Mul(strength, hn::LoadU(D(), a)), gamma), D(), a);
      hn::StoreU(hn::Mul(hn::Mul(query_scale, hn::LoadU(D(), p)), gamma), D(), p);
    }
    c.a[i * n + i] = 0;
  }
}

/// T = (I + A)^-1 by forward substitution: T_i = e_i - sum_{m<i} A_im T_m. Lower triangular, ones on the diagonal.
void invert(Chunk& c) {
  const int64_t n = c.padded;
  std::fill_n(c.inverse, n * n, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    float* row = c.inverse + i * n;
    for (int64_t j = 0; j < i; j += kLanes) {
      V sum = hn::Zero(D());
      for (int64_t m = j; m < i; ++m) {
        sum = hn::NegMulAdd(hn::Set(D(), c.a[i * n + m]), hn::LoadU(D(), c.inverse + m * n + j), sum);
      }
      hn::StoreU(sum, D(), row + j);
    }
    row[i] = 1;
  }
}

void chunk(const DeltaHead& head, float* scratch) {
  Chunk c(head, scratch);
  const int64_t n = c.padded, dk = c.dk, dv = c.dv;
  gather_rows(head.k, head.key_stride, c.rows, n, dk, c.k);
  gather_rows(head.q, head.key_stride, c.rows, n, dk, c.q);
  gather_rows(head.v, head.value_stride, c.rows, n, dv, c.scaled_v);
  decays(head, c);
  pair_products(head.scale, c);
  invert(c);

  for (int64_t i = 0; i < n; ++i) {
    scale_row(c.scaled_v + i * dv, c.beta[i], c.scaled_v + i * dv, dv);
    // Negative, so that the product with S below can be added to U.
    scale_row(c.k + i * dk, -c.beta[i] * c.from_start[i], c.scaled_k + i * dk, dk);
    scale_row(c.q + i * dk, head.scale * c.from_start[i], c.q + i * dk, dk);
  }
  std::fill_n(c.u, n * dv, 0.0f);
  std::fill_n(c.w, n * dk, 0.0f);
  std::fill_n(c.y, n * dv, 0.0f);
  multiply(n, dv, n, c.inverse, n, 1, c.scaled_v, dv, c.u, dv);  // U
  multiply(n, dk, n, c.inverse, n, 1, c.scaled_k, dk, c.w, dk);  // -W
  multiply(n, dv, dk, c.w, dk, 1, head.state, dv, c.u, dv);      // V' = U - W S
  multiply(n, dv, dk, c.q, dk, 1, head.state, dv, c.y, dv);
  multiply(n, dv, n, c.p, n, 1, c.u, dv, c.y, dv);
  for (int64_t i = 0; i < c.rows; ++i) std::copy_n(c.y + i * dv, dv, head.y + i * head.value_stride);

  for (int64_t i = 0; i < n; ++i) scale_row(c.k + i * dk, c.to_end[i], c.scaled_k + i * dk, dk);
  for (int64_t i = 0; i < dk; ++i) scale_row(head.state + i * dv, c.from_start[n - 1], head.state + i * dv, dv);
  multiply(dk, dv, n, c.scaled_k, 1, dk, c.u, dv, head.state, dv);  // A transposed by its strides
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(chunk);

void gated_delta_chunk_cpu(const DeltaHead& head, float* scratch) {
  HWY_DYNAMIC_DISPATCH(chunk)(head, scratch);
}

}  // namespace nibble::ops
#endif

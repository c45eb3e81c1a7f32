// The chunked (WY) form. With rows i = 1..L of one chunk, G_i = g_1 + .. + g_i and Gamma_ij = exp(G_i - G_j), i >= j:
//   A_ij = beta_i (k_i . k_j) Gamma_ij, i > j            T = (I + A)^-1
//   U = T diag(beta) V        W = T diag(beta e^G) K     V' = U - W S
//   Y = scale (diag(e^G) Q S + P V')                     P_ij = (q_i . k_j) Gamma_ij, i >= j
//   S = e^{G_L} S + (diag(e^{G_L - G}) K)^T V'
// (Yang et al., "Gated Delta Networks", 2025.) Rows are padded to a multiple of 16 with k = q = v = 0, beta = 0 and
// g = 0, which change nothing.
#include <algorithm>

#include "base/check.h"
#include "ops/gated_delta/gated_delta_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gated_delta/chunk_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/gated_delta/chunk-inl.h"

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
  RowFactors f;
};

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
    const V strength = hn::Set(D(), c.f.beta[i]), query_scale = hn::Set(D(), scale);
    for (int64_t j = 0; j < n; j += kLanes) {
      const V gamma = hn::LoadU(D(), c.gamma + i * n + j);
      float *a = c.a + i * n + j, *p = c.p + i * n + j;
      hn::StoreU(hn::Mul(hn::Mul(strength, hn::LoadU(D(), a)), gamma), D(), a);
      hn::StoreU(hn::Mul(hn::Mul(query_scale, hn::LoadU(D(), p)), gamma), D(), p);
    }
    c.a[i * n + i] = 0;
  }
}

void chunk(const DeltaHead& head, float* scratch) {
  Chunk c(head, scratch);
  const int64_t n = c.padded, dk = c.dk, dv = c.dv;
  gather_rows(head.k, head.key_stride, c.rows, n, dk, c.k);
  gather_rows(head.q, head.key_stride, c.rows, n, dk, c.q);
  gather_rows(head.v, head.value_stride, c.rows, n, dv, c.scaled_v);
  decays(head, n, c.f, c.gamma);
  pair_products(head.scale, c);
  invert(n, c.a, c.inverse);

  for (int64_t i = 0; i < n; ++i) {
    scale_row(c.scaled_v + i * dv, c.f.beta[i], c.scaled_v + i * dv, dv);
    // Negative, so that the product with S below can be added to U.
    scale_row(c.k + i * dk, -c.f.beta[i] * c.f.from_start[i], c.scaled_k + i * dk, dk);
    scale_row(c.q + i * dk, head.scale * c.f.from_start[i], c.q + i * dk, dk);
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

  for (int64_t i = 0; i < n; ++i) scale_row(c.k + i * dk, c.f.to_end[i], c.scaled_k + i * dk, dk);
  for (int64_t i = 0; i < dk; ++i) scale_row(head.state + i * dv, c.f.from_start[n - 1], head.state + i * dv, dv);
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

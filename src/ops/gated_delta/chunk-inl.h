// What the chunked form and its backward share. Included once per SIMD target, from inside a file that
// foreach_target.h repeats. Names as in chunk_cpu.cc; matrices are row-major, rows padded to a multiple of 16.
#if defined(NIBBLE_OPS_GATED_DELTA_CHUNK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_GATED_DELTA_CHUNK_INL_H_
#undef NIBBLE_OPS_GATED_DELTA_CHUNK_INL_H_
#else
#define NIBBLE_OPS_GATED_DELTA_CHUNK_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "ops/gated_delta/gated_delta_cpu.h"
#include "ops/matrix-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// n floats: out = factor * in.
HWY_INLINE void scale_row(const float* in, float factor, float* out, int64_t n) {
  const V f = hn::Set(D(), factor);
  for (int64_t i = 0; i < n; i += kLanes) hn::StoreU(hn::Mul(f, hn::LoadU(D(), in + i)), D(), out + i);
}

inline void gather_rows(const float* from, int64_t stride, int64_t rows, int64_t padded, int64_t n, float* to) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(from + i * stride, n, to + i * n);
  std::fill(to + rows * n, to + padded * n, 0.0f);
}

/// The numbers per row of a chunk.
struct RowFactors {
  float from_start[kDeltaTile];  // exp(G_i)
  float to_end[kDeltaTile];      // exp(G_L - G_i)
  float beta[kDeltaTile];
};

/// The factors and gamma [n,n] = exp(G_i - G_j) for i >= j, 0 above the diagonal. G is summed in f64: a token of
/// g = -60 would otherwise cost every later difference in the chunk its low bits. Differences before exp: exp(-G_j)
/// alone overflows.
inline void decays(const DeltaHead& head, int64_t n, RowFactors& f, float* gamma) {
  double cumulative[kDeltaTile], sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (i < head.rows) sum += static_cast<double>(head.g[i * head.gate_stride]);
    cumulative[i] = sum;
    f.beta[i] = i < head.rows ? head.beta[i * head.gate_stride] : 0.0f;
  }
  constexpr float kNever = -200;  // exp of it is 0: what lies above the diagonal
  for (int64_t i = 0; i < n; ++i) {
    f.from_start[i] = std::exp(static_cast<float>(cumulative[i]));
    f.to_end[i] = std::exp(static_cast<float>(sum - cumulative[i]));
    float* row = gamma + i * n;
    for (int64_t j = 0; j < n; ++j) row[j] = j <= i ? static_cast<float>(cumulative[i] - cumulative[j]) : kNever;
    for (int64_t j = 0; j < n; j += kLanes) hn::StoreU(hn::Exp(D(), hn::LoadU(D(), row + j)), D(), row + j);
  }
}

/// T = (I + A)^-1 by forward substitution: T_i = e_i - sum_{m<i} A_im T_m. Lower triangular, ones on the diagonal.
inline void invert(int64_t n, const float* a, float* inverse) {
  std::fill_n(inverse, n * n, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    float* row = inverse + i * n;
    for (int64_t j = 0; j < i; j += kLanes) {
      V sum = hn::Zero(D());
      for (int64_t m = j; m < i; ++m) {
        sum = hn::NegMulAdd(hn::Set(D(), a[i * n + m]), hn::LoadU(D(), inverse + m * n + j), sum);
      }
      hn::StoreU(sum, D(), row + j);
    }
    row[i] = 1;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif

// The two inner loops of every matrix product here. Both give each element of the result one accumulator chain in which
// k ascends, so its bits do not depend on how rows and columns are tiled around it.
//   dot_tile   rows times rows, both contiguous in k: lanes run along k and are summed at the end (linear, scores)
//   multiply   C += A B, lanes run along the columns of B (delta rule, values)
#if defined(NIBBLE_OPS_MATRIX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_OPS_MATRIX_INL_H_
#undef NIBBLE_OPS_MATRIX_INL_H_
#else
#define NIBBLE_OPS_MATRIX_INL_H_
#endif

#include "ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// Whether there are 32 vector registers; else 16.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64;

/// Rows of `a` per tile: with 4 rows of `b` the accumulators, one vector of each row of `a` and one of `b` fill the
/// registers.
constexpr int kTileA = kManyRegisters ? 6 : 3;
constexpr int kTileB = 4;

/// Rows of a tile of C, two vectors wide: enough independent chains to hide the latency of a multiply-add, and
/// registers left for the operands.
constexpr int kTileRows = kManyRegisters ? 8 : 6;

/// acc[i][j] += a[i,k..] * b[j,k..] lane by lane, for k in [0,n), n a multiple of 16.
template <int kA, int kB>
HWY_INLINE void dot_tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n,
                         V (&acc)[kA][kB]) {
  for (int64_t k = 0; k < n; k += kLanes) {
    V rows[kA];
    for (int i = 0; i < kA; ++i) rows[i] = hn::LoadU(D(), a + i * a_stride + k);
    for (int j = 0; j < kB; ++j) {
      const V other = hn::LoadU(D(), b + j * b_stride + k);
      for (int i = 0; i < kA; ++i) acc[i][j] = hn::MulAdd(rows[i], other, acc[i][j]);
    }
  }
}

/// kM rows and kN vectors of C += A B.
template <int kM, int kN>
HWY_INLINE void multiply_tile(int64_t k_size, const float* a, int64_t a_row, int64_t a_col, const float* b,
                              int64_t b_stride, float* c, int64_t c_stride) {
  V acc[kM][kN];
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) acc[i][j] = hn::Zero(D());
  }
  for (int64_t k = 0; k < k_size; ++k) {
    V row[kN];
    for (int j = 0; j < kN; ++j) row[j] = hn::LoadU(D(), b + k * b_stride + j * kLanes);
    for (int i = 0; i < kM; ++i) {
      const V factor = hn::Set(D(), a[i * a_row + k * a_col]);
      for (int j = 0; j < kN; ++j) acc[i][j] = hn::MulAdd(factor, row[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) {
      float* to = c + i * c_stride + j * kLanes;
      hn::StoreU(hn::Add(hn::LoadU(D(), to), acc[i][j]), D(), to);
    }
  }
}

/// kN vectors of every row.
template <int kN>
HWY_INLINE void multiply_columns(int64_t m_size, int64_t k_size, const float* a, int64_t a_row, int64_t a_col,
                                 const float* b, int64_t b_stride, float* c, int64_t c_stride) {
  int64_t m = 0;
  for (; m + kTileRows <= m_size; m += kTileRows) {
    multiply_tile<kTileRows, kN>(k_size, a + m * a_row, a_row, a_col, b, b_stride, c + m * c_stride, c_stride);
  }
  for (; m + 2 <= m_size; m += 2) {
    multiply_tile<2, kN>(k_size, a + m * a_row, a_row, a_col, b, b_stride, c + m * c_stride, c_stride);
  }
  if (m < m_size) multiply_tile<1, kN>(k_size, a + m * a_row, a_row, a_col, b, b_stride, c + m * c_stride, c_stride);
}

/// C[m,n] += sum_k A[m,k] B[k,n] for n_size a multiple of 16. A has any strides (a transposed matrix is one with them
/// exchanged), B and C are row-major.
inline void multiply(int64_t m_size, int64_t n_size, int64_t k_size, const float* a, int64_t a_row, int64_t a_col,
                     const float* b, int64_t b_stride, float* c, int64_t c_stride) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= n_size; n += 2 * kLanes) {
    multiply_columns<2>(m_size, k_size, a, a_row, a_col, b + n, b_stride, c + n, c_stride);
  }
  if (n < n_size) multiply_columns<1>(m_size, k_size, a, a_row, a_col, b + n, b_stride, c + n, c_stride);
}

/// to[c,r] = from[r,c]; `to` is [columns,rows] without gaps.
inline void transpose(int64_t rows, int64_t columns, const float* from, int64_t stride, float* to) {
  // Columns in runs of 16, one cache line of every row, so that a line is read once while it is near.
  for (int64_t first = 0; first < columns; first += 16) {
    const int64_t end = first + 16 < columns ? first + 16 : columns;
    for (int64_t c = first; c < end; ++c) {
      for (int64_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * stride + c];
    }
  }
}

/// sum_i a[i] b[i] for n a multiple of 16, with two independent chains where 16 elements are two vectors or more.
HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  constexpr int kChains = kVectorsPer16 >= 2 ? 2 : 1;
  V sum[2] = {hn::Zero(D()), hn::Zero(D())};
  for (int64_t i = 0; i < n; i += kChains * kLanes) {
    for (int j = 0; j < kChains; ++j) {
      sum[j] = hn::MulAdd(hn::LoadU(D(), a + i + j * kLanes), hn::LoadU(D(), b + i + j * kLanes), sum[j]);
    }
  }
  return sum_lanes(hn::Add(sum[0], sum[1]));
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#endif

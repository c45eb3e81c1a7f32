// The few dense factorizations that solvers need, in f64 and row-major. Sums are made by OpenBLAS on one thread at a
// time; where several threads of cx.pool work, each has tiles whose sizes depend on the matrix alone, so results do not
// depend on their number.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "tensor/context.h"

namespace nibble::quantize {

/// A = L L' in place: reads and writes the lower triangle of a [n,n]; what is above the diagonal means nothing
/// afterwards. False where A is not positive definite (or not finite); the triangle is spoilt then.
bool cholesky(Context& cx, double* a, int64_t n);

/// L := L^-1 in place for a lower triangle with a diagonal free of zeros. Above the diagonal are zeros afterwards.
void invert_lower(Context& cx, double* l, int64_t n);

/// A [m,n] = U diag(s) V', k = min(m,n): u [m,k], s [k] descending, vt [k,n].
struct Svd {
  int64_t m = 0, n = 0;
  std::vector<double> u, s, vt;
};
/// `invalid_argument` where the iteration does not converge, as with numbers that are not finite.
Result<Svd> svd(std::vector<double> a, int64_t m, int64_t n);

/// Replaces the columns of a [m,n], m >= n, by an orthonormal basis of what they span (QR).
void orthonormalize(std::vector<double>& a, int64_t m, int64_t n);

/// c [m,n] = a [m,k] b [k,n], or a' b with a [k,m]; row-major with the given row strides, single-threaded.
void matmul(int64_t m, int64_t n, int64_t k, const double* a, int64_t a_stride, const double* b, int64_t b_stride,
            double* c, int64_t c_stride);
void matmul_transposed(int64_t m, int64_t n, int64_t k, const double* a, int64_t a_stride, const double* b,
                       int64_t b_stride, double* c, int64_t c_stride);

}  // namespace nibble::quantize

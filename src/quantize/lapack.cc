#include "quantize/lapack.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <mutex>

// LAPACK's Fortran symbols, which OpenBLAS exports; matrices are column-major there, so every row-major matrix below is
// passed as its transpose.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda, int* info);
void dgesdd_(const char* jobz, const int* m, const int* n, double* a, const int* lda, double* s, double* u,
             const int* ldu, double* vt, const int* ldvt, double* work, const int* lwork, int* iwork, int* info);
void dgeqrf_(const int* m, const int* n, double* a, const int* lda, double* tau, double* work, const int* lwork,
             int* info);
void dorgqr_(const int* m, const int* n, const int* k, double* a, const int* lda, const double* tau, double* work,
             const int* lwork, int* info);
}
// NOLINTEND(readability-identifier-naming)

namespace nibble::quantize {
namespace {

constexpr int64_t kPanel = 192;  // columns that are eliminated together, and the side of a tile

// The number of threads is a property of the process: one, and cx.pool does the rest.
void use_one_thread() {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
}

int as_int(int64_t n) {
  NIBBLE_CHECK(n >= 0 && n <= INT32_MAX);
  return static_cast<int>(n);
}

int64_t tiles(int64_t n) {
  return (n + kPanel - 1) / kPanel;
}

std::vector<double> transposed(const std::vector<double>& a, int64_t rows, int64_t columns) {
  std::vector<double> t(a.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j)
      t[static_cast<size_t>(j * rows + i)] = a[static_cast<size_t>(i * columns + j)];
  }
  return t;
}

}  // namespace

bool cholesky(Context& cx, double* a, int64_t n) {
  use_one_thread();
  for (int64_t k = 0; k < n; k += kPanel) {
    const int64_t width = std::min(kPanel, n - k), next = k + width, rest = n - next;
    const int size = as_int(width), stride = as_int(n);
    int info = 0;
    dpotrf_("U", &size, a + k * n + k, &stride, &info);
    if (info != 0) return false;
    for (int64_t i = k; i < next; ++i) {  // NaN passes for positive there
      if (!(a[i * n + i] > 0 && std::isfinite(a[i * n + i]))) return false;
    }
    // Rows below: X := X L^-T.
    cx.pool.parallel_for(tiles(rest), 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = next + t * kPanel, rows = std::min(kPanel, n - row);
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, as_int(rows), size, 1,
                    a + k * n + k, stride, a + row * n + k, stride);
      }
    });
    // What is left, tile by tile of its lower triangle: C -= X_i X_j'.
    const int64_t side = tiles(rest);
    cx.pool.parallel_for(side * (side + 1) / 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        auto i = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(t) + 1) - 1) / 2);
        while (i * (i + 1) / 2 > t) --i;
        while ((i + 1) * (i + 2) / 2 <= t) ++i;
        const int64_t row = next + i * kPanel, column = next + (t - i * (i + 1) / 2) * kPanel;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, as_int(std::min(kPanel, n - row)),
                    as_int(std::min(kPanel, n - column)), size, -1, a + row * n + k, stride, a + column * n + k, stride,
                    1, a + row * n + column, stride);
      }
    });
  }
  return true;
}

void invert_lower(Context& cx, double* l, int64_t n) {
  use_one_thread();
  const int stride = as_int(n);
  std::vector<double> row_block(static_cast<size_t>(kPanel * n));
  for (int64_t i = 0; i < n; i += kPanel) {
    const int64_t rows = std::min(kPanel, n - i);
    const int size = as_int(rows);
    double* const diagonal = l + i * n + i;
    int info = 0;
    dtrtri_("U", "N", &size, diagonal, &stride, &info);
    NIBBLE_CHECK(info == 0);
    for (int64_t r = 0; r < rows; ++r) std::fill(l + (i + r) * n + i + r + 1, l + (i + r + 1) * n, 0.0);
    // M_ij = -M_ii sum_{j<=k<i} L_ik M_kj, with the rows above done.
    cx.pool.parallel_for(i / kPanel, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t j = t * kPanel;
        double* const sum = row_block.data() + j;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, as_int(kPanel), as_int(i - j), -1, l + i * n + j,
                    stride, l + j * n + j, stride, 0, sum, stride);
        cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, size, as_int(kPanel), 1, diagonal,
                    stride, sum, stride);
      }
    });
    for (int64_t r = 0; r < rows; ++r) std::copy_n(row_block.data() + r * n, i, l + (i + r) * n);
  }
}

Result<Svd> svd(std::vector<double> a, int64_t m, int64_t n) {
  use_one_thread();
  NIBBLE_CHECK(m > 0 && n > 0 && static_cast<int64_t>(a.size()) == m * n);
  // It would not return.
  if (!std::all_of(a.begin(), a.end(), [](double x) { return std::isfinite(x); })) {
    return invalid_argument("singular values: expected finite numbers");
  }
  const int64_t k = std::min(m, n);
  Svd result{m, n, std::vector<double>(static_cast<size_t>(m * k)), std::vector<double>(static_cast<size_t>(k)),
             std::vector<double>(static_cast<size_t>(k * n))};
  const int rows = as_int(n), columns = as_int(m), inner = as_int(k);
  std::vector<int> integers(static_cast<size_t>(8 * k));
  int info = 0, query = -1;
  double wanted = 0;
  // The transpose has V for U: its left vectors, column-major, are our vt.
  dgesdd_("S", &rows, &columns, a.data(), &rows, result.s.data(), result.vt.data(), &rows, result.u.data(), &inner,
          &wanted, &query, integers.data(), &info);
  NIBBLE_CHECK(info == 0);
  std::vector<double> work(static_cast<size_t>(wanted));
  const int length = as_int(static_cast<int64_t>(work.size()));
  dgesdd_("S", &rows, &columns, a.data(), &rows, result.s.data(), result.vt.data(), &rows, result.u.data(), &inner,
          work.data(), &length, integers.data(), &info);
  if (info != 0) return invalid_argument("singular values: expected the iteration to converge");
  return result;
}

void orthonormalize(std::vector<double>& a, int64_t m, int64_t n) {
  use_one_thread();
  NIBBLE_CHECK(m >= n && static_cast<int64_t>(a.size()) == m * n);
  std::vector<double> t = transposed(a, m, n), tau(static_cast<size_t>(n));
  const int rows = as_int(m), columns = as_int(n);
  std::vector<double> work(static_cast<size_t>(n * 64));
  const int length = as_int(static_cast<int64_t>(work.size()));
  int info = 0;
  dgeqrf_(&rows, &columns, t.data(), &rows, tau.data(), work.data(), &length, &info);
  NIBBLE_CHECK(info == 0);
  dorgqr_(&rows, &columns, &columns, t.data(), &rows, tau.data(), work.data(), &length, &info);
  NIBBLE_CHECK(info == 0);
  a = transposed(t, n, m);
}

void matmul(int64_t m, int64_t n, int64_t k, const double* a, int64_t a_stride, const double* b, int64_t b_stride,
            double* c, int64_t c_stride) {
  use_one_thread();
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, as_int(m), as_int(n), as_int(k), 1, a, as_int(a_stride), b,
              as_int(b_stride), 0, c, as_int(c_stride));
}

void matmul_transposed(int64_t m, int64_t n, int64_t k, const double* a, int64_t a_stride, const double* b,
                       int64_t b_stride, double* c, int64_t c_stride) {
  use_one_thread();
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, as_int(m), as_int(n), as_int(k), 1, a, as_int(a_stride), b,
              as_int(b_stride), 0, c, as_int(c_stride));
}

}  // namespace nibble::quantize

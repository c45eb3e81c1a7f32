#include "ops/blas.h"

#include <cblas.h>

namespace nibble::ops {
namespace {

/// Our threads call OpenBLAS; its own would only compete with them.
void one_thread_per_call() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

void sgemm(CBLAS_TRANSPOSE transpose, int64_t m, int64_t n, int64_t k, float alpha, Rows a, Rows b, float beta,
           float* c, int64_t c_stride) {
  one_thread_per_call();
  const auto narrow = [](int64_t x) { return static_cast<blasint>(x); };
  cblas_sgemm(CblasRowMajor, transpose, CblasNoTrans, narrow(m), narrow(n), narrow(k), alpha, a.data, narrow(a.stride),
              b.data, narrow(b.stride), beta, c, narrow(c_stride));
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, float alpha, Rows a, Rows b, float beta, float* c, int64_t c_stride) {
  sgemm(CblasNoTrans, m, n, k, alpha, a, b, beta, c, c_stride);
}

void gemm_transposed(int64_t m, int64_t n, int64_t k, float alpha, Rows a, Rows b, float beta, float* c,
                     int64_t c_stride) {
  sgemm(CblasTrans, m, n, k, alpha, a, b, beta, c, c_stride);
}

}  // namespace nibble::ops

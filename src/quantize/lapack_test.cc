#include "quantize/lapack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"
#include "tests/support/op_test.h"

namespace nibble::quantize {
namespace {

using test::TestContext;

std::vector<double> random(Rng& rng, int64_t n) {
  std::vector<double> a(static_cast<size_t>(n));
  for (double& x : a) x = static_cast<double>(rng.normal());
  return a;
}

// X X' + n I for a random X.
std::vector<double> positive_definite(Rng& rng, int64_t n) {
  const std::vector<double> x = random(rng, n * n);
  std::vector<double> a(x.size());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = i == j ? static_cast<double>(n) : 0;
      for (int64_t k = 0; k < n; ++k) sum += x[static_cast<size_t>(i * n + k)] * x[static_cast<size_t>(j * n + k)];
      a[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return a;
}

TEST(Lapack, CholeskyAndInverseOfTheTriangle) {
  Rng rng(1);
  for (const int64_t n : {1, 5, 32, 191, 192, 193, 400, 577}) {
    const std::vector<double> a = positive_definite(rng, n);
    TestContext one(1), three(3);
    std::vector<double> l = a, other = a;
    ASSERT_TRUE(cholesky(one.cx, l.data(), n));
    ASSERT_TRUE(cholesky(three.cx, other.data(), n));
    const auto at = [&](const std::vector<double>& m, int64_t i, int64_t j) {
      return m[static_cast<size_t>(i * n + j)];
    };
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        EXPECT_EQ(at(l, i, j), at(other, i, j)) << "on three threads";
        double sum = 0;
        for (int64_t k = 0; k <= j; ++k) sum += at(l, i, k) * at(l, j, k);
        worst = std::max(worst, std::abs(sum - at(a, i, j)));
        largest = std::max(largest, std::abs(at(a, i, j)));
      }
    }
    EXPECT_LT(worst, 1e-13 * largest) << n;

    std::vector<double> m = l;
    invert_lower(one.cx, m.data(), n);
    invert_lower(three.cx, other.data(), n);
    EXPECT_EQ(m, other) << "on three threads";
    worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        if (j > i) {
          EXPECT_EQ(at(m, i, j), 0);
          continue;
        }
        double sum = 0;
        for (int64_t k = j; k <= i; ++k) sum += at(l, i, k) * at(m, k, j);
        worst = std::max(worst, std::abs(sum - (i == j)));
      }
    }
    EXPECT_LT(worst, 1e-12) << n;
  }
}

TEST(Lapack, CholeskyRefusesWhatIsNotPositiveDefinite) {
  TestContext test;
  std::vector<double> a = {1, 0, 0, -1};
  EXPECT_FALSE(cholesky(test.cx, a.data(), 2));
  a = {std::numeric_limits<double>::quiet_NaN()};
  EXPECT_FALSE(cholesky(test.cx, a.data(), 1));
  Rng rng(2);
  a = positive_definite(rng, 300);
  a[299 * 300 + 299] = -1;  // in the second panel
  EXPECT_FALSE(cholesky(test.cx, a.data(), 300));
}

TEST(Lapack, SingularValues) {
  Rng rng(3);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 1}, {7, 7}, {20, 9}, {9, 20}, {100, 64}}) {
    const std::vector<double> a = random(rng, m * n);
    const Result<Svd> result = svd(a, m, n);
    ASSERT_TRUE(result.ok());
    const int64_t k = std::min(m, n);
    for (int64_t i = 1; i < k; ++i) EXPECT_GE(result->s[static_cast<size_t>(i - 1)], result->s[static_cast<size_t>(i)]);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t r = 0; r < k; ++r) {
          sum += result->u[static_cast<size_t>(i * k + r)] * result->s[static_cast<size_t>(r)] *
                 result->vt[static_cast<size_t>(r * n + j)];
        }
        EXPECT_NEAR(sum, a[static_cast<size_t>(i * n + j)], 1e-12);
      }
    }
  }
  EXPECT_FALSE(svd({1, std::numeric_limits<double>::infinity()}, 1, 2).ok());
}

TEST(Lapack, OrthonormalBasisOfColumns) {
  Rng rng(4);
  std::vector<double> q = random(rng, 50 * 6);
  const std::vector<double> a = q;
  orthonormalize(q, 50, 6);
  std::vector<double> gram(36), coefficients(36), back(300);
  matmul_transposed(6, 6, 50, q.data(), 6, q.data(), 6, gram.data(), 6);
  for (size_t i = 0; i < 36; ++i) EXPECT_NEAR(gram[i], i % 7 == 0, 1e-14);
  matmul_transposed(6, 6, 50, q.data(), 6, a.data(), 6, coefficients.data(), 6);
  matmul(50, 6, 6, q.data(), 6, coefficients.data(), 6, back.data(), 6);
  for (size_t i = 0; i < 300; ++i) EXPECT_NEAR(back[i], a[i], 1e-13);
}

}  // namespace
}  // namespace nibble::quantize

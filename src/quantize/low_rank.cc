#include "quantize/low_rank.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "ops/backend.h"
#include "ops/parallel.h"
#include "quantize/lapack.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kSlab = 64;  // rows or columns that are widened to f64 together

// out [N,l] = w in, in [K,l].
std::vector<double> times(Context& cx, const Tensor& w, const std::vector<double>& in, int64_t l) {
  const int64_t rows = w.dim(0), columns = w.dim(1);
  std::vector<double> out(static_cast<size_t>(rows * l));
  cx.pool.parallel_for((rows + kSlab - 1) / kSlab, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t row = s * kSlab, n = std::min(kSlab, rows - row);
      const float* from = w.f32() + row * columns;
      const std::vector<double> wide(from, from + n * columns);
      matmul(n, l, columns, wide.data(), columns, in.data(), l, out.data() + row * l, l);
    }
  });
  return out;
}

// out [K,l] = w' in, in [N,l].
std::vector<double> transposed_times(Context& cx, const Tensor& w, const std::vector<double>& in, int64_t l) {
  const int64_t rows = w.dim(0), columns = w.dim(1);
  std::vector<double> out(static_cast<size_t>(columns * l));
  cx.pool.parallel_for((columns + kSlab - 1) / kSlab, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t column = s * kSlab, n = std::min(kSlab, columns - column);
      std::vector<double> wide(static_cast<size_t>(rows * n));
      for (int64_t r = 0; r < rows; ++r) std::copy_n(w.f32() + r * columns + column, n, wide.data() + r * n);
      matmul_transposed(n, l, rows, wide.data(), n, in.data(), l, out.data() + column * l, l);
    }
  });
  return out;
}

// The singular directions within the range of w Omega for a normal Omega, sharpened by powers of w w'.
Result<Svd> randomized_svd(Context& cx, const Tensor& w, const LowRankOptions& options) {
  const int64_t rows = w.dim(0), columns = w.dim(1);
  const int64_t l = std::min({options.rank + options.oversampling, rows, columns});
  Rng rng(options.seed);
  std::vector<double> omega(static_cast<size_t>(columns * l));
  for (double& x : omega) x = static_cast<double>(rng.normal());
  std::vector<double> range = times(cx, w, omega, l);
  orthonormalize(range, rows, l);
  for (int i = 0; i < options.power_iterations; ++i) {
    std::vector<double> other = transposed_times(cx, w, range, l);
    orthonormalize(other, columns, l);
    range = times(cx, w, other, l);
    orthonormalize(range, rows, l);
  }
  // w' Q = V S U_small'.
  NIBBLE_TRY(small, svd(transposed_times(cx, w, range, l), columns, l));
  Svd result{rows, columns, std::vector<double>(static_cast<size_t>(rows * l)), small.s,
             std::vector<double>(static_cast<size_t>(l * columns))};
  std::vector<double> turn(static_cast<size_t>(l * l));
  for (int64_t i = 0; i < l; ++i) {
    for (int64_t j = 0; j < l; ++j) turn[static_cast<size_t>(i * l + j)] = small.vt[static_cast<size_t>(j * l + i)];
  }
  matmul(rows, l, l, range.data(), l, turn.data(), l, result.u.data(), l);
  for (int64_t k = 0; k < columns; ++k) {
    for (int64_t i = 0; i < l; ++i) {
      result.vt[static_cast<size_t>(i * columns + k)] = small.u[static_cast<size_t>(k * l + i)];
    }
  }
  return result;
}

LowRank in_bf16(const LowRank& factors) {
  LowRank rounded;
  for (const auto& [from, to] : {std::pair{&factors.a, &rounded.a}, std::pair{&factors.b, &rounded.b}}) {
    *to = OwnedTensor(DType::bf16, from->view.shape());
    for (int64_t i = 0; i < from->view.elements(); ++i) to->view.bf16()[i] = f32_to_bf16(from->view.f32()[i]);
  }
  return rounded;
}

std::vector<double> widened(const Tensor& bf16) {
  std::vector<double> wide(static_cast<size_t>(bf16.elements()));
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<double>(bf16_to_f32(bf16.bf16()[i]));
  return wide;
}

}  // namespace

Result<LowRank> low_rank_factors(Context& cx, const Tensor& w, const LowRankOptions& options) {
  ops::require_cpu("low_rank", w);
  NIBBLE_CHECK(w.rank() == 2);
  const int64_t rows = w.dim(0), columns = w.dim(1), rank = options.rank;
  NIBBLE_CHECK(rank >= 1 && rank <= std::min(rows, columns));
  const auto finite = [](float x) { return std::isfinite(x); };
  if (!std::all_of(w.f32(), w.f32() + w.elements(), finite)) {
    return invalid_argument("low rank: expected finite weights");
  }
  const bool exact = std::min(rows, columns) <= options.exact_limit;
  NIBBLE_TRY(parts, exact ? svd(std::vector<double>(w.f32(), w.f32() + w.elements()), rows, columns)
                          : randomized_svd(cx, w, options));
  const auto k = static_cast<int64_t>(parts.s.size());
  LowRank factors{OwnedTensor(DType::f32, {rank, columns}), OwnedTensor(DType::f32, {rows, rank})};
  for (int64_t i = 0; i < rank * columns; ++i) {
    factors.a.view.f32()[i] = static_cast<float>(parts.vt[static_cast<size_t>(i)]);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t r = 0; r < rank; ++r) {
      factors.b.view.f32()[row * rank + r] =
          static_cast<float>(parts.u[static_cast<size_t>(row * k + r)] * parts.s[static_cast<size_t>(r)]);
    }
  }
  return factors;
}

Result<LowRank> low_rank(Context& cx, const Tensor& w, const LowRankOptions& options, const Tensor& residual) {
  NIBBLE_TRY(factors, low_rank_factors(cx, w, options));
  LowRank rounded = in_bf16(factors);
  if (residual.empty()) return rounded;
  NIBBLE_CHECK(residual.shape() == w.shape());
  const std::vector<double> a = widened(rounded.a.view), b = widened(rounded.b.view);
  const int64_t rows = w.dim(0), columns = w.dim(1), rank = options.rank;
  float* const out = residual.f32();
  cx.pool.parallel_for((rows + kSlab - 1) / kSlab, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> product(static_cast<size_t>(kSlab * columns));
    for (int64_t s = begin; s < end; ++s) {
      const int64_t row = s * kSlab, n = std::min(kSlab, rows - row);
      matmul(n, columns, rank, b.data() + row * rank, rank, a.data(), columns, product.data(), columns);
      const float* from = w.f32() + row * columns;
      for (int64_t i = 0; i < n * columns; ++i) {
        out[row * columns + i] = static_cast<float>(static_cast<double>(from[i]) - product[static_cast<size_t>(i)]);
      }
    }
  });
  return rounded;
}

}  // namespace nibble::quantize

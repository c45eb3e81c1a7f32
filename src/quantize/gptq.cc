#include "quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/backend.h"
#include "ops/parallel.h"
#include "ops/quant/nvfp4.h"
#include "quantize/gptq_rows.h"
#include "quantize/lapack.h"

namespace nibble::quantize {
namespace {

constexpr int64_t kBlock = kNvfp4Block;
constexpr int kRetries = 3;

// Rows that go through all columns together: enough that the factor is read from memory rarely, and all threads have
// work. Depends on the shape alone.
int64_t slab_rows(int64_t rows) {
  return std::clamp<int64_t>((rows / 32 + 15) / 16 * 16, 16, 128);
}

// Sums f(row slab) in the order of the slabs. f(first row, rows, scratch) -> double.
template <class F>
double sum_slabs(Context& cx, int64_t rows, int64_t cost, int64_t floats, const F& f) {
  const int64_t slab = slab_rows(rows), slabs = (rows + slab - 1) / slab;
  std::vector<double> sums(static_cast<size_t>(slabs));
  ops::for_each_item(cx, slabs, cost * slab, floats, [&](int64_t s, float* scratch) {
    sums[static_cast<size_t>(s)] = f(s * slab, std::min(slab, rows - s * slab), scratch);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

// sum e H e' with e [N,K] = difference(row, k).
template <class Difference>
double loss_of(Context& cx, int64_t rows, const Tensor& hessian, const Difference& difference) {
  const int64_t columns = hessian.dim(0), slab = slab_rows(rows);
  return sum_slabs(cx, rows, columns * columns / 16, slab * columns + quadratic_scratch(slab),
                   [&](int64_t row, int64_t n, float* e) {
                     for (int64_t r = 0; r < n; ++r) difference(row + r, e + r * columns);
                     return quadratic_slab(e, n, columns, hessian.f32(), e + n * columns);
                   });
}

double nearest_loss(Context& cx, const Tensor& w, const Tensor& hessian, Nvfp4TensorScale scale, const Tensor& scales) {
  const int64_t columns = w.dim(1);
  return loss_of(cx, w.dim(0), hessian, [&](int64_t row, float* e) {
    const float* x = w.f32() + row * columns;
    const uint8_t* bytes = scales.u8() + row * columns / kBlock;
    for (int64_t k = 0; k < columns; ++k) {
      const float step = nvfp4_step(bytes[k / kBlock], scale.ws2);
      e[k] = (scale.zero ? 0 : nvfp4_value(nvfp4_code(x[k], step), step)) - x[k];
    }
  });
}

double code_loss(Context& cx, const Tensor& w, const Tensor& hessian, Nvfp4TensorScale scale, const Tensor& scales,
                 const Tensor& codes) {
  const int64_t columns = w.dim(1);
  return loss_of(cx, w.dim(0), hessian, [&](int64_t row, float* e) {
    const float* x = w.f32() + row * columns;
    const uint8_t *bytes = scales.u8() + row * columns / kBlock, *packed = codes.u8() + row * columns / 2;
    for (int64_t k = 0; k < columns; ++k) {
      const auto code = static_cast<uint8_t>(packed[k / 2] >> (k % 2 * 4) & 15);
      e[k] = nvfp4_value(code, nvfp4_step(bytes[k / kBlock], scale.ws2)) - x[k];
    }
  });
}

// The columns of a slab in the order of the factor; rows beyond the tensor are zeros with step 1.
void load_slab(const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales, int64_t row, int64_t n,
               const GptqSlab& slab, float* steps) {
  const int64_t columns = slab.columns, blocks = columns / kBlock;
  for (int64_t r = 0; r < slab.rows; ++r) {
    float* const to = slab.w + r * columns;
    if (r >= n) {
      std::fill_n(to, columns, 0.0f);
      for (int64_t b = 0; b < blocks; ++b) steps[b * slab.rows + r] = 1;
      continue;
    }
    const float* from = w.f32() + (row + r) * columns;
    for (int64_t i = 0; i < columns; ++i) to[i] = from[slab.order[i]];
    const uint8_t* bytes = scales.u8() + (row + r) * blocks;
    for (int64_t b = 0; b < blocks; ++b) steps[b * slab.rows + r] = nvfp4_step(bytes[b], scale.ws2);
  }
}

void store_slab(const GptqSlab& slab, int64_t row, int64_t n, const Tensor& codes, const Tensor& compensated) {
  const int64_t columns = slab.columns;
  std::vector<uint8_t> line(static_cast<size_t>(columns));
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < columns; ++i) line[static_cast<size_t>(slab.order[i])] = slab.codes[i * slab.rows + r];
    uint8_t* const packed = codes.u8() + (row + r) * columns / 2;
    for (int64_t j = 0; j < columns / 2; ++j) {
      packed[j] = static_cast<uint8_t>(line[static_cast<size_t>(2 * j + 1)] << 4 | line[static_cast<size_t>(2 * j)]);
    }
    if (compensated.empty()) continue;
    float* const out = compensated.f32() + (row + r) * columns;
    for (int64_t i = 0; i < columns; ++i) out[slab.order[i]] = slab.w[r * columns + i];
  }
}

void solve(Context& cx, const Tensor& w, const GptqFactor& factor, Nvfp4TensorScale scale, const Tensor& scales,
           int64_t block, const Tensor& codes, const Tensor& compensated) {
  const int64_t rows = w.dim(0), columns = w.dim(1), slab = slab_rows(rows), slabs = (rows + slab - 1) / slab;
  const int64_t of_weights = slab * columns, of_steps = slab * columns / kBlock, of_codes = slab * columns / 4;
  const int64_t floats = of_weights + of_steps + of_codes + gptq_scratch(slab, block);
  ops::for_each_item(cx, slabs, slab * columns * columns / 16, floats, [&](int64_t s, float* scratch) {
    GptqSlab one;
    one.rows = slab;
    one.columns = columns;
    one.block = block;
    one.order = factor.order().data();
    one.upper = factor.upper();
    one.w = scratch;
    float* const steps = scratch + of_weights;
    one.steps = steps;
    one.codes = reinterpret_cast<uint8_t*>(steps + of_steps);
    one.scratch = steps + of_steps + of_codes;
    const int64_t row = s * slab, n = std::min(slab, rows - row);
    load_slab(w, scale, scales, row, n, one, steps);
    gptq_slab(one);
    store_slab(one, row, n, codes, compensated);
  });
}

}  // namespace

GptqFactor GptqFactor::make(Context& cx, const Tensor& hessian, const GptqOptions& options,
                            std::span<const uint8_t> zero_columns) {
  const int64_t columns = hessian.dim(0);
  NIBBLE_CHECK(hessian.shape() == Shape({columns, columns}) && columns > 0);
  NIBBLE_CHECK(zero_columns.empty() || static_cast<int64_t>(zero_columns.size()) == columns);
  const float* const h = hessian.f32();
  const auto diagonal = [&](int64_t j) { return h[j * columns + j]; };
  std::vector<uint8_t> dead(static_cast<size_t>(columns));
  double sum = 0;
  for (int64_t j = 0; j < columns; ++j) {
    const auto i = static_cast<size_t>(j);
    dead[i] = diagonal(j) == 0 || (!zero_columns.empty() && zero_columns[i] != 0);
    sum += dead[i] ? 1 : static_cast<double>(diagonal(j));
  }
  const double mean = sum / static_cast<double>(columns);

  GptqFactor factor;
  factor.order_.resize(static_cast<size_t>(columns));
  std::iota(factor.order_.begin(), factor.order_.end(), int64_t{0});
  if (options.act_order) {
    std::stable_sort(factor.order_.begin(), factor.order_.end(),
                     [&](int64_t a, int64_t b) { return diagonal(a) > diagonal(b); });
  }

  // With J the reversal of the order, J H J = L L' gives H^-1 = (J L^-1 J)' (J L^-1 J), and J L^-1 J is upper
  // triangular: one factorization and one inverse of a triangle, never H^-1 itself.
  Buffer memory(static_cast<size_t>(columns * columns) * sizeof(double));
  auto* const a = reinterpret_cast<double*>(memory.data());
  const auto reversed = [&](int64_t i) { return factor.order_[static_cast<size_t>(columns - 1 - i)]; };
  double damping = options.damping;
  for (int attempt = 0; attempt <= kRetries; ++attempt, damping *= 10) {
    factor.damping_retries_ = attempt;
    cx.pool.parallel_for(columns, ops::row_grain(columns), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = reversed(i);
        const bool row_dead = dead[static_cast<size_t>(row)] != 0;
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t column = reversed(j);
          const bool off = row_dead || dead[static_cast<size_t>(column)] != 0;
          a[i * columns + j] = off ? 0 : static_cast<double>(h[row * columns + column]);
        }
        a[i * columns + i] = (row_dead ? 1 : static_cast<double>(diagonal(row))) + damping * mean;
      }
    });
    factor.usable_ = cholesky(cx, a, columns);
    if (factor.usable_) break;
  }
  if (!factor.usable_) return factor;
  invert_lower(cx, a, columns);
  factor.upper_ = OwnedTensor(DType::f32, {columns, columns});
  float* const upper = factor.upper_.view.f32();
  cx.pool.parallel_for(columns, ops::row_grain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double* from = a + (columns - 1 - i) * columns;
      for (int64_t j = i; j < columns; ++j) upper[i * columns + j] = static_cast<float>(from[columns - 1 - j]);
    }
  });
  return factor;
}

std::vector<uint8_t> gptq_zero_columns(std::span<const Tensor> readers) {
  NIBBLE_CHECK(!readers.empty());
  std::vector<uint8_t> zero(static_cast<size_t>(readers[0].dim(1)), 1);
  for (const Tensor& w : readers) {
    const int64_t columns = w.dim(1);
    NIBBLE_CHECK(columns == static_cast<int64_t>(zero.size()));
    for (int64_t row = 0; row < w.dim(0); ++row) {
      const float* x = w.f32() + row * columns;
      for (size_t k = 0; k < zero.size(); ++k) zero[k] = static_cast<uint8_t>(zero[k] & (x[k] == 0));
    }
  }
  return zero;
}

GptqReport gptq_encode(Context& cx, const Tensor& w, const GptqFactor& factor, const Tensor& hessian,
                       Nvfp4TensorScale scale, const Tensor& scales, const GptqOptions& options, const Tensor& codes,
                       const Tensor& compensated) {
  ops::require_cpu("gptq", w);
  NIBBLE_CHECK(w.rank() == 2 && w.dim(1) == factor.columns() && w.dim(1) % kBlock == 0);
  NIBBLE_CHECK(codes.dtype() == DType::u8 && codes.shape() == Shape({w.dim(0), w.dim(1) / 2}));
  NIBBLE_CHECK(scales.shape() == Shape({w.dim(0), w.dim(1) / kBlock}));
  NIBBLE_CHECK(compensated.empty() || (compensated.shape() == w.shape() && compensated.raw() != w.raw()));
  NIBBLE_CHECK(options.block > 0 && options.block % 16 == 0);

  GptqReport report;
  report.damping_retries = factor.damping_retries();
  report.fell_back_to_nearest = !factor.usable();
  double energy = 0;
  if (options.measure) {
    energy = hessian_loss(cx, w, hessian);
    if (energy > 0) report.nearest_loss = nearest_loss(cx, w, hessian, scale, scales) / energy;
  }
  if (scale.zero || !factor.usable()) {
    ops::nvfp4_encode(cx, w, scale, scales, codes);
    if (!compensated.empty()) std::copy_n(w.f32(), w.elements(), compensated.f32());
    report.loss = report.nearest_loss;
    return report;
  }
  solve(cx, w, factor, scale, scales, options.block, codes, compensated);
  if (energy > 0) report.loss = code_loss(cx, w, hessian, scale, scales, codes) / energy;
  return report;
}

GptqReport gptq(Context& cx, const Tensor& w, const Tensor& hessian, Nvfp4TensorScale scale, const Tensor& scales,
                const GptqOptions& options, const Tensor& codes, const Tensor& compensated) {
  const std::vector<uint8_t> zero = gptq_zero_columns({&w, 1});
  const GptqFactor factor = GptqFactor::make(cx, hessian, options, zero);
  return gptq_encode(cx, w, factor, hessian, scale, scales, options, codes, compensated);
}

double hessian_loss(Context& cx, const Tensor& e, const Tensor& hessian) {
  const int64_t columns = hessian.dim(0);
  NIBBLE_CHECK(e.rank() == 2 && e.dim(1) == columns && columns % kBlock == 0);
  return loss_of(cx, e.dim(0), hessian,
                 [&](int64_t row, float* out) { std::copy_n(e.f32() + row * columns, columns, out); });
}

}  // namespace nibble::quantize

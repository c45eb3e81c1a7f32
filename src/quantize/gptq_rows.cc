// Inside a block of columns rows lie side by side in the lanes of a vector; the columns behind it are updated as a
// matrix product, which is nearly all of the work.
#include "quantize/gptq_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/gptq_rows.cc"
#include "hwy/foreach_target.h"
#include "ops/matrix-inl.h"
#include "ops/quant/nvfp4-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::quantize {
namespace HWY_NAMESPACE {

using namespace ops::HWY_NAMESPACE;  // NOLINT(google-build-using-namespace): the vector names of this target

/// multiply() of matrix-inl.h with B copied piece by piece: its rows lie so far apart, at powers of two often, that
/// they would displace each other in the caches. `copy` [kGptqDepth,kGptqPanel].
void multiply_copied(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b,
                     int64_t b_stride, float* c, int64_t c_stride, float* copy) {
  for (int64_t j = 0; j < n; j += kGptqPanel) {
    const int64_t width = std::min(kGptqPanel, n - j);
    for (int64_t i = 0; i < k; i += kGptqDepth) {
      const int64_t depth = std::min(kGptqDepth, k - i);
      for (int64_t r = 0; r < depth; ++r) std::copy_n(b + (i + r) * b_stride + j, width, copy + r * width);
      multiply(m, width, depth, a + i * a_col, a_row, a_col, copy, width, c + j, c_stride);
    }
  }
}

// Columns [first, first + width) of 16 rows, which `w` and `e` [width,16] hold by columns.
HWY_INLINE void solve_columns(const GptqSlab& slab, int64_t first, int64_t width, int64_t row, float* w, float* e) {
  const int64_t stride = slab.rows;
  for (int64_t i = 0; i < width; ++i) {
    const float* upper = slab.upper + (first + i) * slab.columns + first;
    const float* step = slab.steps + slab.order[first + i] / kBlock * stride + row;
    const V diagonal = hn::Set(D(), upper[i]);
    V error[kVectorsPer16];
    VI code[kVectorsPer16];
    HWY_ALIGN int32_t lanes[kBlock];
    for (int64_t v = 0; v < kVectorsPer16; ++v) {
      const V d = hn::LoadU(D(), step + v * kLanes), x = hn::Load(D(), w + i * 16 + v * kLanes);
      const V value = round_to_e2m1(hn::Div(x, d));
      code[v] = code_of(value);
      error[v] = hn::Div(hn::Sub(x, hn::Mul(value, d)), diagonal);
      hn::Store(error[v], D(), e + i * 16 + v * kLanes);
      hn::Store(code[v], I(), lanes + v * kLanes);
    }
    for (int64_t r = 0; r < 16; ++r) {
      slab.codes[(first + i) * stride + row + r] = static_cast<uint8_t>(lanes[r]);
    }
    for (int64_t j = i + 1; j < width; ++j) {
      const V u = hn::Set(D(), upper[j]);
      for (int64_t v = 0; v < kVectorsPer16; ++v) {
        float* const to = w + j * 16 + v * kLanes;
        hn::Store(hn::NegMulAdd(error[v], u, hn::Load(D(), to)), D(), to);
      }
    }
  }
}

void solve_slab(const GptqSlab& slab) {
  const int64_t stride = slab.columns;
  float* const w16 = slab.scratch;              // [block,16]
  float* const e16 = w16 + slab.block * 16;     // [block,16]
  float* const errors = e16 + slab.block * 16;  // [block,rows], negated
  float* const copy = errors + slab.block * slab.rows;
  for (int64_t first = 0; first < slab.columns; first += slab.block) {
    const int64_t width = std::min(slab.block, slab.columns - first), next = first + width;
    for (int64_t row = 0; row < slab.rows; row += 16) {
      float* const block = slab.w + row * stride + first;
      for (int64_t r = 0; r < 16; ++r) {
        for (int64_t i = 0; i < width; ++i) w16[i * 16 + r] = block[r * stride + i];
      }
      solve_columns(slab, first, width, row, w16, e16);
      for (int64_t i = 0; i < width; ++i) {
        for (int64_t r = 0; r < 16; ++r) {
          block[r * stride + i] = w16[i * 16 + r];
          errors[i * slab.rows + row + r] = -e16[i * 16 + r];
        }
      }
    }
    // w_rest -= E U[block, rest]
    multiply_copied(slab.rows, slab.columns - next, width, errors, 1, slab.rows, slab.upper + first * stride + next,
                    stride, slab.w + next, stride, copy);
  }
}

double quadratic(const float* e, int64_t rows, int64_t columns, const float* hessian, float* scratch) {
  float* const copy = scratch + rows * kGptqWidth;
  double sum = 0;
  for (int64_t first = 0; first < columns; first += kGptqWidth) {
    const int64_t width = std::min(kGptqWidth, columns - first);
    std::fill_n(scratch, rows * kGptqWidth, 0.0f);
    // Blocks above the diagonal count twice.
    multiply_copied(rows, width, first, e, columns, 1, hessian + first, columns, scratch, kGptqWidth, copy);
    for (int64_t i = 0; i < rows * kGptqWidth; ++i) scratch[i] *= 2;
    multiply_copied(rows, width, width, e + first, columns, 1, hessian + first * columns + first, columns, scratch,
                    kGptqWidth, copy);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < width; ++i) {
        sum += static_cast<double>(scratch[r * kGptqWidth + i]) * static_cast<double>(e[r * columns + first + i]);
      }
    }
  }
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::quantize
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::quantize {
namespace {

HWY_EXPORT(solve_slab);
HWY_EXPORT(quadratic);

}  // namespace

int64_t gptq_scratch(int64_t rows, int64_t block) {
  return block * (32 + rows) + kGptqDepth * kGptqPanel;
}

int64_t quadratic_scratch(int64_t rows) {
  return rows * kGptqWidth + kGptqDepth * kGptqPanel;
}

void gptq_slab(const GptqSlab& slab) {
  HWY_DYNAMIC_DISPATCH(solve_slab)(slab);
}

double quadratic_slab(const float* e, int64_t rows, int64_t columns, const float* hessian, float* scratch) {
  return HWY_DYNAMIC_DISPATCH(quadratic)(e, rows, columns, hessian, scratch);
}

}  // namespace nibble::quantize
#endif

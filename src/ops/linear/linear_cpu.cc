#include "ops/linear/linear_cpu.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear/linear_cpu.cc"
#include <hwy/foreach_target.h>
#include "ops/linear/weight_rows-inl.h"
#include "ops/matrix-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::ops {
namespace HWY_NAMESPACE {

/// kR rows of the weight from row n on, times kT tokens.
template <class Row, int kR, int kT>
HWY_INLINE void rows_times_tokens(const Linear& w, int64_t n, const float* x, int64_t padded, float* y) {
  Row rows[kR];
  V acc[kR][kT];
  for (int i = 0; i < kR; ++i) {
    rows[i] = Row(w, n + i);
    for (int t = 0; t < kT; ++t) acc[i][t] = hn::Zero(D());
  }
  const auto accumulate = [&](int i, int64_t k, const Vectors16& weights) HWY_ATTR {
    for (int64_t v = 0; v < kVectorsPer16; ++v) {
      for (int t = 0; t < kT; ++t) {
        acc[i][t] = hn::MulAdd(weights[v], hn::LoadU(D(), x + t * padded + k + v * kLanes), acc[i][t]);
      }
    }
  };
  const int64_t whole = w.in / 16 * 16;
  for (int64_t k = 0; k < whole; k += 16) {
    for (int i = 0; i < kR; ++i) {
      Vectors16 weights;
      rows[i].load16(k, weights);
      accumulate(i, k, weights);
    }
  }
  for (int i = 0; i < kR && whole < w.in; ++i) {
    float rest[16] = {};
    rows[i].load_rest(whole, w.in - whole, rest);
    Vectors16 weights;
    for (int64_t v = 0; v < kVectorsPer16; ++v) weights[v] = hn::LoadU(D(), rest + v * kLanes);
    accumulate(i, whole, weights);
  }
  for (int t = 0; t < kT; ++t) {
    for (int i = 0; i < kR; ++i) y[t * w.out + n + i] = output_factor(w, n + i) * sum_lanes(acc[i][t]);
  }
}

template <class Row, int kT>
void few_tokens(const Linear& w, const float* x, int64_t padded, int64_t begin, int64_t end, float* y) {
  constexpr int kR = kT <= 2 ? 4 : 2;  // at least four chains in flight
  int64_t n = begin;
  for (; n + kR <= end; n += kR) rows_times_tokens<Row, kR, kT>(w, n, x, padded, y);
  for (; n < end; ++n) rows_times_tokens<Row, 1, kT>(w, n, x, padded, y);
}

template <class Row>
void few_tokens(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end, float* y) {
  switch (tokens) {
    case 1:
      return few_tokens<Row, 1>(w, x, padded, begin, end, y);
    case 2:
      return few_tokens<Row, 2>(w, x, padded, begin, end, y);
    case 3:
      return few_tokens<Row, 3>(w, x, padded, begin, end, y);
    default:
      return few_tokens<Row, 4>(w, x, padded, begin, end, y);
  }
}

void linear_few(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end, float* y) {
  switch (w.format) {
    case WeightFormat::f32:
      return few_tokens<F32Row>(w, x, tokens, padded, begin, end, y);
    case WeightFormat::bf16:
      return few_tokens<Bf16Row>(w, x, tokens, padded, begin, end, y);
    case WeightFormat::fp8:
      return few_tokens<Fp8Row>(w, x, tokens, padded, begin, end, y);
    case WeightFormat::nvfp4:
      return few_tokens<Nvfp4Row>(w, x, tokens, padded, begin, end, y);
  }
}

/// Columns [k, k + width) of `rows` rows from row n on, as f32 [rows,width]; zeros where the weight has none.
template <class Row>
void decode_block(const Linear& w, int64_t n, int64_t rows, int64_t k, int64_t width, float* block) {
  for (int64_t i = 0; i < rows; ++i, block += width) {
    if (n + i >= w.out) {
      std::fill_n(block, width, 0.0f);
      continue;
    }
    const Row row(w, n + i);
    for (int64_t j = 0; j < width; j += 16) {
      if (k + j + 16 > w.in) {
        std::fill_n(block + j, 16, 0.0f);
        row.load_rest(k + j, w.in - k - j, block + j);
        continue;
      }
      Vectors16 weights;
      row.load16(k + j, weights);
      for (int64_t v = 0; v < kVectorsPer16; ++v) hn::StoreU(weights[v], D(), block + j + v * kLanes);
    }
  }
}

void linear_decode(const Linear& w, int64_t n, int64_t rows, int64_t k, int64_t width, float* block) {
  switch (w.format) {
    case WeightFormat::f32:
      return decode_block<F32Row>(w, n, rows, k, width, block);
    case WeightFormat::bf16:
      return decode_block<Bf16Row>(w, n, rows, k, width, block);
    case WeightFormat::fp8:
      return decode_block<Fp8Row>(w, n, rows, k, width, block);
    case WeightFormat::nvfp4:
      return decode_block<Nvfp4Row>(w, n, rows, k, width, block);
  }
}

/// Some tokens against kTileA decoded rows: `width` columns of the sums.
struct TokenTile {
  const float *rows, *x;  // [kTileA,width], [tokens,width]
  int64_t width;
  bool first, last;      // of the blocks along k
  float* sums;           // where they rest until the next block
  const float* factors;  // of the valid rows
  float* y;
  int64_t y_stride, valid;  // valid: rows that have a place in y

  template <int kT>
  HWY_INLINE void run() const {
    V tile[kTileA][kT];
    for (int i = 0; i < kTileA; ++i) {
      for (int t = 0; t < kT; ++t) tile[i][t] = first ? hn::Zero(D()) : hn::LoadU(D(), sums + (i * kT + t) * kLanes);
    }
    dot_tile<kTileA, kT>(rows, width, x, width, width, tile);
    if (!last) {
      for (int i = 0; i < kTileA; ++i) {
        for (int t = 0; t < kT; ++t) hn::StoreU(tile[i][t], D(), sums + (i * kT + t) * kLanes);
      }
      return;
    }
    HWY_ALIGN float results[kTileA][kTileB];
    for (int i = 0; i < kTileA; ++i) sum_lanes_of<kT>(tile[i], results[i]);
    for (int t = 0; t < kT; ++t) {
      for (int64_t i = 0; i < valid; ++i) y[t * y_stride + i] = factors[i] * results[i][t];
    }
  }
};

template <class Row>
void panel(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end, int64_t n,
           float* scratch, float* y) {
  static_assert(kPanelRows % kTileA == 0);
  const int64_t valid = std::min(kPanelRows, w.out - n), rows = (valid + kTileA - 1) / kTileA * kTileA;
  float *block = scratch, *sums = scratch + kPanelRows * kBlock;
  float factors[kPanelRows];
  for (int64_t i = 0; i < valid; ++i) factors[i] = output_factor(w, n + i);
  for (int64_t k = 0; k < padded; k += kBlock) {
    const int64_t width = std::min(kBlock, padded - k);
    decode_block<Row>(w, n, rows, k, width, block);
    for (int64_t r = 0; r < rows; r += kTileA) {
      for (int64_t t = t_begin; t < t_end; t += kTileB) {
        const TokenTile tile{.rows = block + r * width,
                             .x = x + k * tokens + t * width,
                             .width = width,
                             .first = k == 0,
                             .last = k + width == padded,
                             .sums = sums + (r * (t_end - t_begin) + (t - t_begin) * kTileA) * kLanes,
                             .factors = factors + r,
                             .y = y + t * w.out + n + r,
                             .y_stride = w.out,
                             .valid = std::min<int64_t>(kTileA, valid - r)};
        switch (t_end - t) {
          case 1:
            tile.run<1>();
            break;
          case 2:
            tile.run<2>();
            break;
          case 3:
            tile.run<3>();
            break;
          default:
            tile.run<4>();
            break;
        }
      }
    }
  }
}

void linear_panel(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end,
                  int64_t n, float* scratch, float* y) {
  switch (w.format) {
    case WeightFormat::f32:
      return panel<F32Row>(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
    case WeightFormat::bf16:
      return panel<Bf16Row>(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
    case WeightFormat::fp8:
      return panel<Fp8Row>(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
    case WeightFormat::nvfp4:
      return panel<Nvfp4Row>(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
  }
}

/// A[0..rows, n..n + depth) without gaps, in the order it has.
void gather_operand(const WeightProduct& p, int64_t n, int64_t depth, float* to) {
  const bool by_rows = p.a_col == 1;
  const int64_t runs = by_rows ? p.rows : depth, length = by_rows ? depth : p.rows;
  const float* from = p.a + n * p.a_col;
  for (int64_t i = 0; i < runs; ++i) std::copy_n(from + i * (by_rows ? p.a_row : p.a_col), length, to + i * length);
}

void weight_product(const WeightProduct& p, float* scratch) {
  float *const block = scratch, *const a = block + kProductDepth * kProductColumns;
  float* const edge = a + kProductDepth * p.rows;
  for (int64_t n = 0; n < p.w->out; n += kProductDepth) {
    const int64_t depth = std::min(kProductDepth, p.w->out - n);
    gather_operand(p, n, depth, a);
    const int64_t a_row = p.a_col == 1 ? depth : 1, a_col = p.a_col == 1 ? 1 : p.rows;
    for (int64_t j = 0; j < p.columns; j += kProductColumns) {
      const int64_t valid = std::min(kProductColumns, p.columns - j), width = (valid + 15) / 16 * 16;
      linear_decode(*p.w, n, depth, p.column + j, width, block);
      float* const c = p.c + j;
      if (valid == width) {
        multiply(p.rows, width, depth, a, a_row, a_col, block, width, c, p.c_stride);
        continue;
      }
      std::fill_n(edge, p.rows * width, 0.0f);
      multiply(p.rows, width, depth, a, a_row, a_col, block, width, edge, width);
      for (int64_t i = 0; i < p.rows; ++i) {
        for (int64_t k = 0; k < valid; ++k) c[i * p.c_stride + k] += edge[i * width + k];
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(linear_few);
HWY_EXPORT(linear_panel);
HWY_EXPORT(weight_product);

void linear_few_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end,
                    float* y) {
  HWY_DYNAMIC_DISPATCH(linear_few)(w, x, tokens, padded, begin, end, y);
}

void linear_panel_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end,
                      int64_t n, float* scratch, float* y) {
  HWY_DYNAMIC_DISPATCH(linear_panel)(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
}

void weight_product_cpu(const WeightProduct& product, float* scratch) {
  HWY_DYNAMIC_DISPATCH(weight_product)(product, scratch);
}

}  // namespace nibble::ops
#endif

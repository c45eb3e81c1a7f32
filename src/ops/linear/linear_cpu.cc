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
    for (int i = 0; i < kR; ++i) y[t * w.out + n + i] = w.tensor_scale * sum_lanes(acc[i][t]);
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
    case WeightFormat::nvfp4:
      return decode_block<Nvfp4Row>(w, n, rows, k, width, block);
  }
}

/// kT tokens against `rows` decoded rows: acc[t][row] += their partial sums over `width` columns.
template <int kT>
void tokens_times_block(const float* block, int64_t rows, const float* x, int64_t width, float* acc) {
  for (int64_t r = 0; r < rows; r += kTileA) {
    V tile[kTileA][kT];
    const auto at = [&](int i, int t) { return acc + (t * kPanelRows + r + i) * kLanes; };
    for (int i = 0; i < kTileA; ++i) {
      for (int t = 0; t < kT; ++t) tile[i][t] = hn::LoadU(D(), at(i, t));
    }
    dot_tile<kTileA, kT>(block + r * width, width, x, width, width, tile);
    for (int i = 0; i < kTileA; ++i) {
      for (int t = 0; t < kT; ++t) hn::StoreU(tile[i][t], D(), at(i, t));
    }
  }
}

template <class Row>
void panel(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end, int64_t n,
           float* scratch, float* y) {
  static_assert(kPanelRows % kTileA == 0);
  const int64_t valid = std::min(kPanelRows, w.out - n), rows = (valid + kTileA - 1) / kTileA * kTileA;
  float *block = scratch, *acc = scratch + kPanelRows * kBlock;
  std::fill_n(acc, (t_end - t_begin) * kPanelRows * kLanes, 0.0f);
  for (int64_t k = 0; k < padded; k += kBlock) {
    const int64_t width = std::min(kBlock, padded - k);
    decode_block<Row>(w, n, rows, k, width, block);
    const float* operand = x + k * tokens + t_begin * width;
    for (int64_t t = 0; t < t_end - t_begin; t += kTileB) {
      const float* tile = operand + t * width;
      float* sums = acc + t * kPanelRows * kLanes;
      switch (t_end - t_begin - t) {
        case 1:
          tokens_times_block<1>(block, rows, tile, width, sums);
          break;
        case 2:
          tokens_times_block<2>(block, rows, tile, width, sums);
          break;
        case 3:
          tokens_times_block<3>(block, rows, tile, width, sums);
          break;
        default:
          tokens_times_block<4>(block, rows, tile, width, sums);
          break;
      }
    }
  }
  for (int64_t t = t_begin; t < t_end; ++t, acc += kPanelRows * kLanes) {
    for (int64_t i = 0; i < valid; ++i) {
      y[t * w.out + n + i] = w.tensor_scale * sum_lanes(hn::LoadU(D(), acc + i * kLanes));
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
    case WeightFormat::nvfp4:
      return panel<Nvfp4Row>(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::ops {

HWY_EXPORT(linear_few);
HWY_EXPORT(linear_panel);
HWY_EXPORT(linear_decode);

void linear_few_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t begin, int64_t end,
                    float* y) {
  HWY_DYNAMIC_DISPATCH(linear_few)(w, x, tokens, padded, begin, end, y);
}

void linear_panel_cpu(const Linear& w, const float* x, int64_t tokens, int64_t padded, int64_t t_begin, int64_t t_end,
                      int64_t n, float* scratch, float* y) {
  HWY_DYNAMIC_DISPATCH(linear_panel)(w, x, tokens, padded, t_begin, t_end, n, scratch, y);
}

void linear_decode_cpu(const Linear& w, int64_t n, int64_t rows, int64_t k, int64_t width, float* block) {
  HWY_DYNAMIC_DISPATCH(linear_decode)(w, n, rows, k, width, block);
}

}  // namespace nibble::ops
#endif

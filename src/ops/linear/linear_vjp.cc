#include <algorithm>

#include "ops/backend.h"
#include "ops/linear/linear.h"
#include "ops/linear/linear_cpu.h"
#include "ops/parallel.h"

namespace nibble::ops {
namespace {

/// Tiles over a result [rows, columns], some for every thread where it is large enough. Column borders are multiples of
/// 16. Where the borders lie changes no bit.
struct Grid {
  struct Tile {
    int64_t row, column, rows, columns;
  };

  Grid(int64_t rows, int64_t columns, int threads)
      : rows(rows), columns(columns), tile_rows(first_side(rows)), tile_columns(first_side(columns)) {
    constexpr int64_t kSmallest = 128;
    while (tiles() < int64_t{3} * threads && std::max(tile_rows, tile_columns) > kSmallest) {
      int64_t& side = tile_rows > tile_columns ? tile_rows : tile_columns;
      side = up16((side + 1) / 2);
    }
  }

  int64_t tiles() const { return across() * ((rows + tile_rows - 1) / tile_rows); }
  Tile tile(int64_t i) const {
    const int64_t row = i / across() * tile_rows, column = i % across() * tile_columns;
    return {row, column, std::min(tile_rows, rows - row), std::min(tile_columns, columns - column)};
  }

  int64_t rows, columns, tile_rows, tile_columns;

 private:
  static int64_t up16(int64_t n) { return (n + 15) / 16 * 16; }
  static int64_t first_side(int64_t n) { return std::clamp<int64_t>(up16(n), 16, 512); }
  int64_t across() const { return (columns + tile_columns - 1) / tile_columns; }
};

/// dy[t,n] * factor[n], in scratch.
Tensor scaled_outputs(Context& cx, const Tensor& dy, const float* factors) {
  const int64_t width = dy.dim(1);
  const Tensor scaled = cx.arena.f32(dy.shape());
  const float* from = dy.f32();
  float* to = scaled.f32();
  cx.pool.parallel_for(dy.dim(0), row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t n = 0; n < width; ++n) to[t * width + n] = from[t * width + n] * factors[n];
    }
  });
  return scaled;
}

/// dx = dy (c w'), without the low-rank branch.
void product_gradient(Context& cx, const Tensor& dy, const Linear& w, const Tensor& dx) {
  Arena::Scope scope(cx.arena);
  const Tensor scaled = w.channel_scale.empty() ? dy : scaled_outputs(cx, dy, w.channel_scale.f32());
  const Grid grid(dy.dim(0), w.in, cx.pool.threads());
  const float* upstream = scaled.f32();
  float* result = dx.f32();
  const int64_t cost = grid.tile_rows * grid.tile_columns * w.out / 8;
  for_each_item(cx, grid.tiles(), cost, weight_product_floats(grid.tile_rows), [&](int64_t item, float* scratch) {
    const Grid::Tile tile = grid.tile(item);
    float* const c = result + tile.row * w.in + tile.column;
    for (int64_t i = 0; i < tile.rows; ++i) std::fill_n(c + i * w.in, tile.columns, 0.0f);
    weight_product_cpu({.w = &w,
                        .a = upstream + tile.row * w.out,
                        .a_row = w.out,
                        .a_col = 1,
                        .rows = tile.rows,
                        .column = tile.column,
                        .columns = tile.columns,
                        .c = c,
                        .c_stride = w.in},
                       scratch);
    if (w.tensor_scale == 1) return;
    for (int64_t i = 0; i < tile.rows; ++i) {
      for (int64_t j = 0; j < tile.columns; ++j) c[i * w.in + j] *= w.tensor_scale;
    }
  });
}

/// dx += (dy b) a
void add_low_rank_gradient(Context& cx, const Tensor& dy, const Linear& w, const Tensor& dx) {
  Arena::Scope scope(cx.arena);
  const int64_t rank = w.low_rank_a.dim(0);
  if (rank == 0) return;
  const Tensor dz = cx.arena.f32({dy.dim(0), rank}), branch = cx.arena.f32(dx.shape());
  product_gradient(cx, dy, {.format = WeightFormat::bf16, .out = w.out, .in = rank, .weight = w.low_rank_b}, dz);
  product_gradient(cx, dz, {.format = WeightFormat::bf16, .out = rank, .in = w.in, .weight = w.low_rank_a}, branch);
  const float* from = branch.f32();
  float* to = dx.f32();
  cx.pool.parallel_for(dx.elements(), row_grain(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

void weight_gradient(Context& cx, const Tensor& dy, const Tensor& x, const Linear& w, const Tensor& dw) {
  // dy^T x is a product with x as its weight.
  Linear right;
  right.out = dy.dim(0), right.in = w.in, right.weight = linear_inputs(cx, x, w).x;
  const Grid grid(w.out, w.in, cx.pool.threads());
  const float* upstream = dy.f32();
  float* result = dw.f32();
  const int64_t cost = grid.tile_rows * grid.tile_columns * right.out / 8;
  for_each_item(cx, grid.tiles(), cost, weight_product_floats(grid.tile_rows), [&](int64_t item, float* scratch) {
    const Grid::Tile tile = grid.tile(item);
    weight_product_cpu({.w = &right,
                        .a = upstream + tile.row,
                        .a_row = 1,
                        .a_col = w.out,
                        .rows = tile.rows,
                        .column = tile.column,
                        .columns = tile.columns,
                        .c = result + tile.row * w.in + tile.column,
                        .c_stride = w.in},
                       scratch);
  });
}

}  // namespace

void linear_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Linear& w, Tensor& dx, Tensor& dw) {
  require_cpu("linear_vjp", dy);
  check_weight(w);
  NIBBLE_CHECK(cx.numeric == Numeric::exact && dy.rank() == 2 && dy.dim(1) == w.out);
  const int64_t tokens = dy.dim(0);
  if (tokens == 0 || w.out == 0 || w.in == 0) {
    if (!dx.empty()) std::ranges::fill(dx.f32_span(), 0.0f);
    return;
  }
  Arena::Scope scope(cx.arena);
  if (!dx.empty()) {
    NIBBLE_CHECK(dx.shape() == Shape({tokens, w.in}));
    product_gradient(cx, dy, w, dx);
    if (!w.low_rank_a.empty()) add_low_rank_gradient(cx, dy, w, dx);
  }
  if (!dw.empty()) {
    NIBBLE_CHECK(w.low_rank_a.empty());
    NIBBLE_CHECK(x.shape() == Shape({tokens, w.in}) && dw.shape() == Shape({w.out, w.in}));
    weight_gradient(cx, dy, x, w, dw);
  }
}

}  // namespace nibble::ops

// Products of f32 matrices by OpenBLAS, each on the calling thread alone: the work of training. Callers cut a product
// into tiles by its shape and share those between threads, so the bits do not depend on how many threads there are.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nibble::ops {

/// A row-major matrix inside a larger one: `stride` elements from row to row.
struct Rows {
  const float* data;
  int64_t stride;
};

/// C[m,n] = alpha * A[m,k] B[k,n] + beta * C. With beta = 0 C is overwritten, whatever it holds.
void gemm(int64_t m, int64_t n, int64_t k, float alpha, Rows a, Rows b, float beta, float* c, int64_t c_stride);

/// C[m,n] = alpha * A[k,m]^T B[k,n] + beta * C.
void gemm_transposed(int64_t m, int64_t n, int64_t k, float alpha, Rows a, Rows b, float beta, float* c,
                     int64_t c_stride);

/// Tiles over a result [rows, columns], large enough for OpenBLAS to run at full speed and, where the result allows,
/// enough of them to occupy some threads. Column borders are multiples of 16.
struct GemmGrid {
  struct Tile {
    int64_t row, column, rows, columns;
  };

  GemmGrid(int64_t rows, int64_t columns)
      : rows(rows), columns(columns), tile_rows(first_side(rows)), tile_columns(first_side(columns)) {
    constexpr int64_t kTiles = 8, kSmallest = 128;
    while (tiles() < kTiles && std::max(tile_rows, tile_columns) > kSmallest) {
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

}  // namespace nibble::ops

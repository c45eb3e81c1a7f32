#include <algorithm>

#include "ops/backend.h"
#include "ops/blas.h"
#include "ops/linear/linear.h"
#include "ops/linear/linear_cpu.h"
#include "ops/parallel.h"
#include "ops/quant/nvfp4.h"

namespace nibble::ops {
namespace {

/// Rows of the weight that meet a tile of dx at a time: with 512 columns they fill 512 KiB, about one L2 cache.
constexpr int64_t kDecodedRows = 256;

bool readable_as_f32(const Linear& w) {
  return w.format == WeightFormat::f32 && reinterpret_cast<uintptr_t>(w.weight.raw()) % alignof(float) == 0;
}

void input_gradient(Context& cx, const Tensor& dy, const Linear& w, const Tensor& dx) {
  const GemmGrid grid(dy.dim(0), w.in);
  const bool direct = readable_as_f32(w);
  const float* upstream = dy.f32();
  float* result = dx.f32();
  const int64_t cost = grid.tile_rows * grid.tile_columns * w.out / 8;
  const int64_t floats = direct ? 0 : kDecodedRows * grid.tile_columns;
  for_each_item(cx, grid.tiles(), cost, floats, [&](int64_t item, float* scratch) {
    const GemmGrid::Tile tile = grid.tile(item);
    for (int64_t n = 0; n < w.out; n += kDecodedRows) {
      const int64_t rows = std::min(kDecodedRows, w.out - n);
      Rows weights{scratch, (tile.columns + 15) / 16 * 16};
      if (direct) {
        weights = {w.weight.f32() + n * w.in + tile.column, w.in};
      } else {
        linear_decode_cpu(w, n, rows, tile.column, weights.stride, scratch);
      }
      gemm(tile.rows, tile.columns, rows, w.tensor_scale, {upstream + tile.row * w.out + n, w.out}, weights,
           n == 0 ? 0.0f : 1.0f, result + tile.row * w.in + tile.column, w.in);
    }
  });
}

void weight_gradient(Context& cx, const Tensor& dy, const Tensor& x, const Linear& w, const Tensor& dw) {
  Tensor operand = x;
  if (w.input_scale > 0) {
    operand = cx.arena.f32(x.shape());
    nvfp4_fake(cx, x, {w.input_scale, false}, operand);
  }
  const GemmGrid grid(w.out, w.in);
  const int64_t tokens = dy.dim(0);
  const float *upstream = dy.f32(), *input = operand.f32();
  float* result = dw.f32();
  const int64_t cost = grid.tile_rows * grid.tile_columns * tokens / 8;
  for_each_item(cx, grid.tiles(), cost, 0, [&](int64_t item, float*) {
    const GemmGrid::Tile tile = grid.tile(item);
    gemm_transposed(tile.rows, tile.columns, tokens, 1, {upstream + tile.row, w.out}, {input + tile.column, w.in}, 1,
                    result + tile.row * w.in + tile.column, w.in);
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
    input_gradient(cx, dy, w, dx);
  }
  if (!dw.empty()) {
    NIBBLE_CHECK(x.shape() == Shape({tokens, w.in}) && dw.shape() == Shape({w.out, w.in}));
    weight_gradient(cx, dy, x, w, dw);
  }
}

}  // namespace nibble::ops

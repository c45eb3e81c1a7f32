#include "ops/linear/linear.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/linear/linear_cpu.h"
#include "ops/parallel.h"
#include "ops/quant/nvfp4.h"

namespace nibble::ops {

void check_weight(const Linear& w) {
  switch (w.format) {
    case WeightFormat::f32:
    case WeightFormat::bf16:
      NIBBLE_CHECK(w.weight.dtype() == (w.format == WeightFormat::f32 ? DType::f32 : DType::bf16));
      NIBBLE_CHECK(w.weight.shape() == Shape({w.out, w.in}) && w.tensor_scale == 1);
      return;
    case WeightFormat::nvfp4:
      NIBBLE_CHECK(w.in % kNvfp4Block == 0 && w.weight.dtype() == DType::u8);
      NIBBLE_CHECK(w.weight.shape() == Shape({w.out, w.in / 2}));
      NIBBLE_CHECK(w.block_scale.dtype() == DType::f8e4m3 && w.block_scale.shape() == Shape({w.out, w.in / 16}));
      return;
  }
}

namespace {

/// x' of the contract: x itself, or its rounded form in scratch.
Tensor rounded_input(Context& cx, const Tensor& x, const Linear& w) {
  Tensor operand = x;
  if (cx.numeric == Numeric::bf16_act) {
    operand = cx.arena.f32(x.shape());
    const float* from = x.f32();
    float* to = operand.f32();
    cx.pool.parallel_for(x.elements(), row_grain(1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = round_to_bf16(from[i]);
    });
  }
  if (w.input_scale > 0) {
    const Tensor quantized = cx.arena.f32(x.shape());
    nvfp4_fake(cx, operand, {w.input_scale, false}, quantized);
    operand = quantized;
  }
  return operand;
}

/// The operand as the kernels read it: cut along k in blocks, each block [T,width] contiguous, zeros behind the end.
const float* arrange(Context& cx, const Tensor& operand, int64_t padded, int64_t block) {
  const int64_t rows = operand.dim(0), in = operand.dim(1);
  const float* from = operand.f32();
  if (padded == in && (block >= in || rows == 1)) return from;
  float* to = cx.arena.f32({rows, padded}).f32();
  cx.pool.parallel_for(rows, row_grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t k = 0; k < padded; k += block) {
      const int64_t width = std::min(block, padded - k), valid = std::clamp<int64_t>(in - k, 0, width);
      for (int64_t t = begin; t < end; ++t) {
        float* row = to + k * rows + t * width;
        std::copy_n(from + t * in + k, valid, row);
        std::fill(row + valid, row + width, 0.0f);
      }
    }
  });
  return to;
}

}  // namespace

void linear(Context& cx, const Tensor& x, const Linear& w, Tensor& y) {
  require_cpu("linear", y);
  NIBBLE_CHECK(x.rank() == 2 && x.dim(1) == w.in && y.shape() == Shape({x.dim(0), w.out}));
  check_weight(w);
  const int64_t rows = x.dim(0), padded = (w.in + 15) / 16 * 16;
  if (rows == 0 || w.out == 0) return;
  Arena::Scope scope(cx.arena);
  const Tensor operand = rounded_input(cx, x, w);
  float* out = y.f32();
  if (rows <= kFewTokens) {
    const float* arranged = arrange(cx, operand, padded, padded);
    cx.pool.parallel_for(w.out, row_grain(padded / 8 * rows), [&](int64_t begin, int64_t end) {
      linear_few_cpu(w, arranged, rows, padded, begin, end, out);
    });
    return;
  }
  const float* arranged = arrange(cx, operand, padded, kBlock);
  const int64_t tile = token_tile(padded), tiles = (rows + tile - 1) / tile;
  const int64_t panels = (w.out + kPanelRows - 1) / kPanelRows, cost = kPanelRows * std::min(rows, tile) * padded / 8;
  for_each_item(cx, panels * tiles, cost, panel_floats(padded), [&](int64_t item, float* scratch) {
    const int64_t t = item / panels * tile, n = item % panels * kPanelRows;
    linear_panel_cpu(w, arranged, rows, padded, t, std::min(t + tile, rows), n, scratch, out);
  });
}

}  // namespace nibble::ops

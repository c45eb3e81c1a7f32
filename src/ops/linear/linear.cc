#include "ops/linear/linear.h"

#include <algorithm>

#include "ops/backend.h"
#include "ops/linear/linear_cpu.h"
#include "ops/parallel.h"
#include "ops/quant/fake_inputs.h"
#include "ops/quant/nvfp4.h"

namespace nibble::ops {

void check_weight(const Linear& w) {
  const Shape shape{w.out, w.in};
  switch (w.format) {
    case WeightFormat::f32:
    case WeightFormat::bf16:
      NIBBLE_CHECK(w.weight.dtype() == (w.format == WeightFormat::f32 ? DType::f32 : DType::bf16));
      NIBBLE_CHECK(w.weight.shape() == shape && w.tensor_scale == 1 && w.channel_scale.empty());
      break;
    case WeightFormat::fp8:
      NIBBLE_CHECK(w.weight.dtype() == DType::f8e4m3 && w.weight.shape() == shape);
      NIBBLE_CHECK(w.channel_scale.empty() || (w.channel_scale.dtype() == DType::f32 &&
                                               w.channel_scale.shape() == Shape({w.out}) && w.tensor_scale == 1));
      break;
    case WeightFormat::nvfp4:
      NIBBLE_CHECK(w.in % kNvfp4Block == 0 && w.weight.dtype() == DType::u8 && w.channel_scale.empty());
      NIBBLE_CHECK(w.weight.shape() == Shape({w.out, w.in / 2}));
      NIBBLE_CHECK(w.block_scale.dtype() == DType::f8e4m3 && w.block_scale.shape() == Shape({w.out, w.in / 16}));
      break;
  }
  const bool static_scale = w.inputs == InputRounding::nvfp4 || w.inputs == InputRounding::fp8;
  const bool blocks = w.inputs == InputRounding::nvfp4 || w.inputs == InputRounding::nvfp4_token;
  NIBBLE_CHECK((!static_scale || w.input_scale > 0) && (!blocks || w.in % kNvfp4Block == 0));
  NIBBLE_CHECK(w.low_rank_a.empty() == w.low_rank_b.empty());
  if (w.low_rank_a.empty()) return;
  const int64_t rank = w.low_rank_a.dim(0);
  NIBBLE_CHECK(w.low_rank_a.dtype() == DType::bf16 && w.low_rank_a.shape() == Shape({rank, w.in}));
  NIBBLE_CHECK(w.low_rank_b.dtype() == DType::bf16 && w.low_rank_b.shape() == Shape({w.out, rank}));
}

LinearInputs linear_inputs(Context& cx, const Tensor& x, const Linear& w) {
  LinearInputs inputs{x, x};
  if (cx.numeric == Numeric::bf16_act) {
    inputs.plain = inputs.x = cx.arena.f32(x.shape());
    const float* from = x.f32();
    float* to = inputs.x.f32();
    cx.pool.parallel_for(x.elements(), row_grain(1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = round_to_bf16(from[i]);
    });
  }
  if (w.inputs == InputRounding::none) return inputs;
  inputs.x = cx.arena.f32(x.shape());
  switch (w.inputs) {
    case InputRounding::none:
      break;
    case InputRounding::nvfp4:
      nvfp4_fake(cx, inputs.plain, {w.input_scale, false}, inputs.x);
      break;
    case InputRounding::nvfp4_token:
      nvfp4_fake_rows(cx, inputs.plain, inputs.x);
      break;
    case InputRounding::fp8:
      fp8_fake(cx, inputs.plain, w.input_scale, inputs.x);
      break;
  }
  return inputs;
}

namespace {

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

/// y = c * sum_k x'[t,k] * w'[n,k], for an operand that is x' already.
void product(Context& cx, const Tensor& operand, const Linear& w, const Tensor& y) {
  Arena::Scope scope(cx.arena);
  const int64_t rows = operand.dim(0), padded = (w.in + 15) / 16 * 16;
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

/// y += b (a x).
void add_low_rank(Context& cx, const Tensor& x, const Linear& w, const Tensor& y) {
  const int64_t rank = w.low_rank_a.dim(0);
  if (rank == 0) return;
  const Tensor z = cx.arena.f32({x.dim(0), rank}), branch = cx.arena.f32(y.shape());
  product(cx, x, {.format = WeightFormat::bf16, .out = rank, .in = w.in, .weight = w.low_rank_a}, z);
  if (cx.numeric == Numeric::bf16_act) {
    for (float& v : z.f32_span()) v = round_to_bf16(v);
  }
  product(cx, z, {.format = WeightFormat::bf16, .out = w.out, .in = rank, .weight = w.low_rank_b}, branch);
  const float* from = branch.f32();
  float* to = y.f32();
  cx.pool.parallel_for(y.elements(), row_grain(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

}  // namespace

void linear(Context& cx, const Tensor& x, const Linear& w, Tensor& y) {
  require_cpu("linear", y);
  NIBBLE_CHECK(x.rank() == 2 && x.dim(1) == w.in && y.shape() == Shape({x.dim(0), w.out}));
  check_weight(w);
  if (x.dim(0) == 0 || w.out == 0) return;
  Arena::Scope scope(cx.arena);
  const LinearInputs inputs = linear_inputs(cx, x, w);
  product(cx, inputs.x, w, y);
  if (!w.low_rank_a.empty()) add_low_rank(cx, inputs.plain, w, y);
}

}  // namespace nibble::ops

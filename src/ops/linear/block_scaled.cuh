// Products of NVFP4 weights with inputs that are rounded to NVFP4, on sm_120a and sm_121a: x is rounded row by row into
// the form of nvfp4_operand.h, and the tensor cores multiply codes with codes under their block scales.
//
// A block makes 16 * kTokenTiles rows of y for 16 * kRowTiles rows of weights. Both operands come through a ring of
// stages in shared memory, a pair of units (128 columns) each. For SwiGLU every other tile of weights is one of `up`,
// so that a warp has both numbers of a result in the same lane.
//
// The product itself is a parameter, Product::multiply of tensor/blackwell.cuh: a test puts another in its place, and
// so runs all of the rest on any GPU.
#pragma once

#include <cuda_pipeline_primitives.h>

#include <algorithm>

#include "ops/linear/linears_cuda.h"
#include "ops/linear/nvfp4_operand.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kMaxOutputs = 4;

struct Output {
  const uint8_t *codes, *scales;
  float factor;  // of all sums: tensor scale and static input scale
  int rows, first_block;
  void* y;
  bool y_is_bf16;
};
struct BlockScaled {
  Output outputs[kMaxOutputs];
  int count;
  const uint8_t *codes, *scales;  // of the rounded inputs
  const float* row_factor;        // their tensor scales, or null where one is for all
  int T, pairs;
};

/// x [T,columns] as an operand. A block per row, zeros behind the last row and column. With `token`, every row has the
/// tensor scale of its own largest magnitude, written to row_factor; else all have input_scale.
template <bool kToken>
__global__ void __launch_bounds__(256)
    round_inputs(const __nv_bfloat16* x, int T, int columns, int pairs, float input_scale, uint8_t* codes,
                 uint8_t* scales, float* row_factor) {
  __shared__ uint32_t warp_amax[8];
  const int t = static_cast<int>(blockIdx.x), row = t % kTileRows;
  const int64_t tile = t / kTileRows;
  const auto* from = reinterpret_cast<const uint16_t*>(x) + static_cast<int64_t>(t) * columns;
  wait_for_predecessor();
  let_successor_start();
  Nvfp4TensorScale scale{input_scale, false};
  if constexpr (kToken) {
    uint32_t bits = 0;
    for (int k = threadIdx.x; t < T && k < columns; k += 256) {
      bits = max(bits, static_cast<uint32_t>(from[k] & 0x7FFF) << 16);
    }
    bits = __reduce_max_sync(0xFFFFFFFF, bits);
    if (threadIdx.x % 32 == 0) warp_amax[threadIdx.x / 32] = bits;
    __syncthreads();
    for (const uint32_t other : warp_amax) bits = max(bits, other);
    scale = nvfp4_tensor_scale(f32_from_bits(bits));
    const bool finite = bits < 0x7F800000;
    if (threadIdx.x == 0) row_factor[t] = !finite ? f32_from_bits(0x7FC00000) : scale.zero ? 0.0f : scale.ws2;
    if (!finite) scale = {};
  }
  for (int i = threadIdx.x; i < pairs * 8; i += 256) {
    const int unit = i / 4, b = i % 4;
    QuantizedBlock block{};
    if (t < T && i * kNvfp4Block < columns && !scale.zero) {
      const auto* eights = reinterpret_cast<const uint4*>(from + i * kNvfp4Block);
      const uint4 low = eights[0], high = eights[1];
      const uint32_t twos[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      float values[kNvfp4Block];
#pragma unroll
      for (int k = 0; k < kNvfp4Block; ++k) {
        values[k] = bf16_to_f32(static_cast<uint16_t>(twos[k / 2] >> (k % 2 * 16)));
      }
      block = quantize_block(values, scale.ws2);
    }
    const LaneWord first = operand_lane(row, 16 * b), second = operand_lane(row, 16 * b + 8);
    const int64_t at = unit_place(tile, unit, pairs);
    *reinterpret_cast<uint32_t*>(codes + at + first.lane * 16 + first.word * 4) = block.low;
    *reinterpret_cast<uint32_t*>(codes + at + second.lane * 16 + second.word * 4) = block.high;
    scales[at / 8 + scales_of_row(row) * 4 + b] = block.scale;
  }
}

/// How a block shares its work: kUnits tiles of tokens and two tiles of weights per warp.
template <int kUnits_, int kTokenWarps, int kRowWarps_, int kStages_>
struct Tiling {
  static constexpr int kUnits = kUnits_, kRowWarps = kRowWarps_, kStages = kStages_;
  static constexpr int kThreads = 32 * kTokenWarps * kRowWarps;
  static constexpr int kTokenTiles = kUnits * kTokenWarps, kRowTiles = 2 * kRowWarps;
  static constexpr int kTiles = kTokenTiles + kRowTiles;
};
using Wide = Tiling<4, 2, 4, 4>;    // 128 tokens x 128 rows
using Narrow = Tiling<1, 1, 2, 6>;  // 16 x 64: the weights go by, what counts is how many are on their way

/// A pair of every tile: those of the inputs first.
template <class Tiles>
struct Stage {
  uint8_t codes[Tiles::kTiles][kPairCodeBytes];
  uint8_t scales[Tiles::kTiles][kPairScaleBytes];
};

/// What a block works on.
template <class Tiles, bool kSwiglu>
struct Work {
  const Output* out;
  int token_tile, row_tile;  // the first of each

  __device__ explicit Work(const BlockScaled& p) : out(p.outputs) {
    const int block = static_cast<int>(blockIdx.y);
    if constexpr (!kSwiglu) {
      while (out + 1 < p.outputs + p.count && block >= out[1].first_block) ++out;
    }
    token_tile = static_cast<int>(blockIdx.x) * Tiles::kTokenTiles;
    row_tile = (block - out->first_block) * (kSwiglu ? Tiles::kRowTiles / 2 : Tiles::kRowTiles);
  }
  /// Of the block's tile i of weights: whose rows they are, and which of its tiles.
  __device__ const Output& output(int i) const { return kSwiglu ? out[i % 2] : *out; }
  __device__ int tile(int i) const { return row_tile + (kSwiglu ? i / 2 : i); }
};

/// Begins to copy the tiles [kBegin, kEnd) of a pair. Tiles behind the last are copies of it, whose results go nowhere.
template <int kBegin, int kEnd, class Tiles, bool kSwiglu>
__device__ void load(const BlockScaled& p, const Work<Tiles, kSwiglu>& work, int pair, Stage<Tiles>& to) {
  constexpr int kCodeChunks = kPairCodeBytes / 16, kChunks = kCodeChunks + kPairScaleBytes / 16;
  if (pair >= p.pairs) return;
#pragma unroll
  for (int i = threadIdx.x; i < (kEnd - kBegin) * kChunks; i += Tiles::kThreads) {
    const int t = kBegin + i / kChunks, chunk = i % kChunks, n = t - Tiles::kTokenTiles;
    const uint8_t *codes = p.codes, *scales = p.scales;
    int64_t tile = 0;
    if (n < 0) {
      tile = min(work.token_tile + t, static_cast<int>(tiles_of(p.T)) - 1);
    } else {
      const Output& out = work.output(n);
      codes = out.codes;
      scales = out.scales;
      tile = min(work.tile(n), static_cast<int>(tiles_of(out.rows)) - 1);
    }
    const int64_t at = tile * p.pairs + pair;
    if (chunk < kCodeChunks) {
      __pipeline_memcpy_async(to.codes[t] + chunk * 16, codes + at * kPairCodeBytes + chunk * 16, 16);
    } else {
      const int rest = (chunk - kCodeChunks) * 16;
      __pipeline_memcpy_async(to.scales[t] + rest, scales + at * kPairScaleBytes + rest, 16);
    }
  }
}

/// sums [unit][tile of weights][half of it] += the products of one stage.
template <class Product, class Tiles>
__device__ void multiply(const Stage<Tiles>& s, int first_token, int first_row, int lane,
                         float (&sums)[Tiles::kUnits][2][2][4]) {
#pragma unroll
  for (int unit = 0; unit < 2; ++unit) {
    const auto words = [&](int tile, uint32_t(&to)[4]) {
      const uint4 v = *reinterpret_cast<const uint4*>(s.codes[tile] + unit * kUnitCodeBytes + lane * 16);
      to[0] = v.x;
      to[1] = v.y;
      to[2] = v.z;
      to[3] = v.w;
    };
    const auto scales = [&](int tile, int word) {
      return *reinterpret_cast<const uint32_t*>(s.scales[tile] + unit * kUnitScaleBytes + word * 4);
    };
    uint32_t weights[2][4], weight_scales[2][2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int tile = Tiles::kTokenTiles + first_row + r;
      words(tile, weights[r]);
#pragma unroll
      for (int half = 0; half < 2; ++half) weight_scales[r][half] = scales(tile, scales_of_b(lane, half));
    }
#pragma unroll
    for (int m = 0; m < Tiles::kUnits; ++m) {
      uint32_t inputs[4];
      words(first_token + m, inputs);
      const uint32_t input_scales = scales(first_token + m, scales_of_a(lane));
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          Product::multiply(sums[m][r][half], inputs, weights[r][word_of_b(half, 0)], weights[r][word_of_b(half, 1)],
                            input_scales, weight_scales[r][half]);
        }
      }
    }
  }
}

/// Two neighbouring results of a token.
__device__ inline void store(const Output& out, int64_t t, int row, float y0, float y1) {
  const int64_t at = t * out.rows + row;
  const bool both = row + 1 < out.rows;
  if (!out.y_is_bf16) {
    auto* y = static_cast<float*>(out.y) + at;
    y[0] = y0;
    if (both) y[1] = y1;
    return;
  }
  auto* y = static_cast<__nv_bfloat16*>(out.y) + at;
  if (out.rows % 2 == 0) {
    *reinterpret_cast<__nv_bfloat162*>(y) = __floats2bfloat162_rn(y0, y1);
    return;
  }
  y[0] = __float2bfloat16_rn(y0);
  if (both) y[1] = __float2bfloat16_rn(y1);
}

/// Tensor scales, SwiGLU, and the way out.
template <class Tiles, bool kSwiglu>
__device__ void finish(const BlockScaled& p, const Work<Tiles, kSwiglu>& work, int first_token, int first_row, int lane,
                       const float (&sums)[Tiles::kUnits][2][2][4]) {
#pragma unroll
  for (int m = 0; m < Tiles::kUnits; ++m) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const int t = (work.token_tile + first_token + m) * kTileRows + result_row(lane, i);
      if (t >= p.T) continue;
      const float factor = p.row_factor == nullptr ? 1.0f : p.row_factor[t];
#pragma unroll
      for (int r = 0; r < (kSwiglu ? 1 : 2); ++r) {
        const Output& out = work.output(first_row + r);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = work.tile(first_row + r) * kTileRows + half * 8 + result_column(lane, i);
          if (row >= out.rows) continue;
          float y[2];
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            y[k] = sums[m][r][half][i + k] * (out.factor * factor);
            if constexpr (kSwiglu) {
              y[k] = y[k] / (1.0f + __expf(-y[k])) * (sums[m][1][half][i + k] * (work.output(1).factor * factor));
            }
          }
          store(out, t, row, y[0], y[1]);
        }
      }
    }
  }
}

template <class Product, class Tiles, bool kSwiglu>
__global__ void __launch_bounds__(Tiles::kThreads) block_scaled(const __grid_constant__ BlockScaled p) {
  extern __shared__ __align__(16) uint8_t raw[];
  auto* const stages = reinterpret_cast<Stage<Tiles>*>(raw);
  const Work<Tiles, kSwiglu> work(p);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_token = warp / Tiles::kRowWarps * Tiles::kUnits, first_row = warp % Tiles::kRowWarps * 2;
  // Weights depend on no kernel before this one.
  for (int s = 0; s < Tiles::kStages - 1; ++s) load<Tiles::kTokenTiles, Tiles::kTiles>(p, work, s, stages[s]);
  wait_for_predecessor();
  let_successor_start();
  for (int s = 0; s < Tiles::kStages - 1; ++s) {
    load<0, Tiles::kTokenTiles>(p, work, s, stages[s]);
    __pipeline_commit();
  }
  float sums[Tiles::kUnits][2][2][4] = {};
  for (int pair = 0; pair < p.pairs; ++pair) {
    __pipeline_wait_prior(Tiles::kStages - 2);
    __syncthreads();  // this stage is there for all, and all have read the one before
    load<0, Tiles::kTiles>(p, work, pair + Tiles::kStages - 1, stages[(pair + Tiles::kStages - 1) % Tiles::kStages]);
    __pipeline_commit();
    multiply<Product, Tiles>(stages[pair % Tiles::kStages], first_token, first_row, lane, sums);
  }
  finish(p, work, first_token, first_row, lane, sums);
}

template <class Product, class Tiles, bool kSwiglu>
void launch_products(Context& cx, BlockScaled& p) {
  constexpr int kTiles = kSwiglu ? Tiles::kRowTiles / 2 : Tiles::kRowTiles;
  int64_t blocks = 0;
  for (int i = 0; i < (kSwiglu ? 1 : p.count); ++i) {
    p.outputs[i].first_block = static_cast<int>(blocks);
    blocks += (tiles_of(p.outputs[i].rows) + kTiles - 1) / kTiles;
  }
  const int64_t tokens = (tiles_of(p.T) + Tiles::kTokenTiles - 1) / Tiles::kTokenTiles;
  launch(cx, "linears", block_scaled<Product, Tiles, kSwiglu>,
         dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(blocks)), dim3(Tiles::kThreads),
         Tiles::kStages * sizeof(Stage<Tiles>), p);
}

/// block_scaled_cuda of linears_cuda.h.
template <class Product>
void run_block_scaled(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const Arena::Scope scope(cx.arena);
  const Linear& first = *outputs[0].weight;
  const bool token = first.inputs == InputRounding::nvfp4_token;
  const int64_t T = x.dim(0), tiles = tiles_of(T), pairs = pairs_of(x.dim(1));
  const Tensor codes = cx.arena.take(DType::u8, {tiles * pairs * kPairCodeBytes});
  const Tensor scales = cx.arena.take(DType::u8, {tiles * pairs * kPairScaleBytes});
  const Tensor row_factor = cx.arena.f32({tiles * kTileRows});
  launch(cx, "linears", token ? round_inputs<true> : round_inputs<false>,
         dim3(static_cast<unsigned>(tiles * kTileRows)), dim3(256), 0, static_cast<const __nv_bfloat16*>(x.raw()),
         static_cast<int>(T), static_cast<int>(x.dim(1)), static_cast<int>(pairs), first.input_scale, codes.u8(),
         scales.u8(), row_factor.f32());
  BlockScaled p{};
  p.codes = codes.u8();
  p.scales = scales.u8();
  p.row_factor = token ? row_factor.f32() : nullptr;
  p.T = static_cast<int>(T);
  p.pairs = static_cast<int>(pairs);
  for (const LinearOutput& o : outputs) {
    const Linear& w = *o.weight;
    NIBBLE_CHECK(w.format == WeightFormat::nvfp4 && same_inputs(w, first));
    p.outputs[p.count++] = {.codes = w.weight.u8(),
                            .scales = w.block_scale.u8(),
                            .factor = token ? w.tensor_scale : w.tensor_scale * w.input_scale,
                            .rows = static_cast<int>(w.out),
                            .first_block = 0,
                            .y = o.y.raw(),
                            .y_is_bf16 = o.y.dtype() == DType::bf16};
  }
  const bool narrow = T <= kTileRows;
  if (swiglu) {
    return narrow ? launch_products<Product, Narrow, true>(cx, p) : launch_products<Product, Wide, true>(cx, p);
  }
  return narrow ? launch_products<Product, Narrow, false>(cx, p) : launch_products<Product, Wide, false>(cx, p);
}

}  // namespace
}  // namespace nibble::ops

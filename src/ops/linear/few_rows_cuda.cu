// Products with up to 64 rows of inputs: every weight is read once, as the A operand of 16x8x16 products whose columns
// are rows of x. Eight warps share 16 (or more) rows of the weight, each a slice of its columns; their sums meet in
// shared memory in the order of the slices. Neither the slices nor any order of addition depends on T.
#include "ops/linear/device_weight.cuh"
#include "ops/linear/fragment_source.cuh"
#include "ops/linear/linears_cuda.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxOutputs = 4;

struct Output {
  DeviceWeight weight;
  WeightFormat format;
  int first_block;  // blocks before this output's
  void* y;
  bool y_is_bf16;
};
struct FewRows {
  Output outputs[kMaxOutputs];
  int count;
  const __nv_bfloat16* x;  // [T,columns]
  int T;
};

__device__ void store(const Output& out, int64_t index, float value) {
  if (out.y_is_bf16) {
    static_cast<__nv_bfloat16*>(out.y)[index] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(out.y)[index] = value;
  }
}

__device__ float finish(const DeviceWeight& w, int row, float sum) {
  return sum * (w.channel_scale == nullptr ? w.factor : w.channel_scale[row]);
}

/// sums += this warp's slice of the products of kTiles tiles with kColumns * 8 rows of x.
template <class Source, int kTiles, int kColumns>
__device__ void accumulate(const FewRows& p, const DeviceWeight* const (&weights)[kTiles], const int (&tiles)[kTiles],
                           int warp, int lane, float (&sums)[kTiles][kColumns][4]) {
  constexpr int kAhead = Source::kUnits == 2 ? (kTiles >= 4 ? 1 : 4 / kTiles) : (kTiles >= 2 ? 1 : 2);
  const int columns = weights[0]->columns, chunk_columns = Source::kUnits * kUnitColumns;
  const int chunks = (columns + chunk_columns - 1) / chunk_columns;
  const int begin = chunks * warp / kWarps, end = chunks * (warp + 1) / kWarps;
  const int g = lane / 4, block = lane % 4 * 16;

  // Weights do not depend on what ran before.
  typename Source::Chunk ahead[kAhead][kTiles];
#pragma unroll
  for (int d = 0; d < kAhead; ++d) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      if (begin + d < end) Source(*weights[r], tiles[r], lane).load(begin + d, ahead[d][r]);
    }
  }
  wait_for_predecessor();

  for (int base = begin; base < end; base += kAhead) {
#pragma unroll
    for (int d = 0; d < kAhead; ++d) {
      const int chunk = base + d;
      if (chunk >= end) break;
      const auto load_next = [&] {
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          if (chunk + kAhead < end) Source(*weights[r], tiles[r], lane).load(chunk + kAhead, ahead[d][r]);
        }
      };
      typename Source::Chunk now[kTiles];
#pragma unroll
      for (int r = 0; r < kTiles; ++r) now[r] = ahead[d][r];
      if constexpr (kTiles < 4) load_next();
#pragma unroll
      for (int unit = 0; unit < Source::kUnits; ++unit) {
        const int k = (chunk * Source::kUnits + unit) * kUnitColumns + block;
        typename Source::Scales scales[kTiles];
#pragma unroll
        for (int r = 0; r < kTiles; ++r) scales[r] = Source::unit_scales(now[r], unit);
          // The inputs of half a unit at a time, or many columns would not fit the registers.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint4 inputs[kColumns];
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const int t = n * 8 + g;
            inputs[n] = t < p.T && k < columns
                            ? *reinterpret_cast<const uint4*>(p.x + static_cast<int64_t>(t) * columns + k + half * 8)
                            : uint4{};
          }
#pragma unroll
          for (int s = 0; s < 2; ++s) {
#pragma unroll
            for (int r = 0; r < kTiles; ++r) {
              uint32_t a[4];
              Source::operand(now[r], unit, half * 2 + s, scales[r], a);
#pragma unroll
              for (int n = 0; n < kColumns; ++n) {
                const uint32_t b[2] = {s == 0 ? inputs[n].x : inputs[n].z, s == 0 ? inputs[n].y : inputs[n].w};
                mma_bf16(sums[r][n], a, b);
              }
            }
          }
        }
      }
      if constexpr (kTiles >= 4) load_next();  // beside so many sums there is no room for two chunks
    }
  }
}

template <int kTiles, int kColumns, bool kSwiglu>
__global__ void __launch_bounds__(kWarps * 32) few_rows(const __grid_constant__ FewRows p) {
  constexpr int kOwn = kSwiglu ? kTiles / 2 : kTiles;  // tiles of one weight
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int index = 0;
  if constexpr (!kSwiglu) {
    while (index + 1 < p.count && static_cast<int>(blockIdx.x) >= p.outputs[index + 1].first_block) ++index;
  }
  const Output& out = p.outputs[index];
  const int first_tile = (static_cast<int>(blockIdx.x) - out.first_block) * kOwn;

  // A last group of tiles may reach beyond the weight: such a tile repeats the last one and is not stored.
  const int last_tile = static_cast<int>(tiles_of(out.weight.rows)) - 1;
  const DeviceWeight* weights[kTiles];
  int tiles[kTiles];
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    weights[r] = kSwiglu && r >= kOwn ? &p.outputs[1].weight : &out.weight;
    tiles[r] = min(first_tile + r % kOwn, last_tile);
  }
  float sums[kTiles][kColumns][4] = {};
  switch (out.format) {
    case WeightFormat::nvfp4:
      accumulate<Nvfp4Source>(p, weights, tiles, warp, lane, sums);
      break;
    case WeightFormat::fp8:
      accumulate<Fp8Source>(p, weights, tiles, warp, lane, sums);
      break;
    default:
      accumulate<Bf16Source>(p, weights, tiles, warp, lane, sums);
      break;
  }
  let_successor_start();

  __shared__ float4 slices[kWarps][kTiles][32];
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    if (n > 0) __syncthreads();
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      slices[warp][r][lane] = {sums[r][n][0], sums[r][n][1], sums[r][n][2], sums[r][n][3]};
    }
    __syncthreads();
    // Neighbouring threads finish neighbouring rows of the weight, which are neighbours in y.
    for (int i = threadIdx.x; i < kOwn * 128; i += kWarps * 32) {
      const int row = i % 16, column = i / 16 % 8, r = i / 128, t = n * 8 + column;
      const int from = (row % 8) * 4 + column / 2, part = row / 8 * 2 + column % 2;
      const int n_out = (first_tile + r) * kTileRows + row;
      if (t >= p.T || n_out >= out.weight.rows) continue;
      const auto total = [&](int tile) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += reinterpret_cast<const float*>(&slices[w][tile][from])[part];
        return sum;
      };
      float y = finish(out.weight, n_out, total(r));
      if constexpr (kSwiglu) {
        const float up = finish(p.outputs[1].weight, n_out, total(r + kOwn));
        y = y / (1.0f + __expf(-y)) * up;
      }
      store(out, static_cast<int64_t>(t) * out.weight.rows + n_out, y);
    }
  }
}

template <int kTiles, int kColumns, bool kSwiglu>
void launch_few(Context& cx, FewRows& p) {
  constexpr int kOwn = kSwiglu ? kTiles / 2 : kTiles;
  int blocks = 0;
  for (int i = 0; i < (kSwiglu ? 1 : p.count); ++i) {
    p.outputs[i].first_block = blocks;
    blocks += static_cast<int>((tiles_of(p.outputs[i].weight.rows) + kOwn - 1) / kOwn);
  }
  launch(cx, "linears", few_rows<kTiles, kColumns, kSwiglu>, dim3(static_cast<unsigned>(blocks)), dim3(kWarps * 32), 0,
         p);
}

}  // namespace

void few_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  FewRows p{};
  p.count = static_cast<int>(outputs.size());
  p.x = static_cast<const __nv_bfloat16*>(x.raw());
  p.T = static_cast<int>(x.dim(0));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Linear& w = *outputs[i].weight;
    p.outputs[i] = {device_weight(w), w.format, 0, outputs[i].y.raw(), outputs[i].y.dtype() == DType::bf16};
  }
  // More tiles per block where the inputs are many: they are read once per block.
  if (swiglu) {
    if (p.T <= 8) return launch_few<2, 1, true>(cx, p);
    if (p.T <= 16) return launch_few<2, 2, true>(cx, p);
    if (p.T <= 32) return launch_few<2, 4, true>(cx, p);
    return launch_few<4, 8, true>(cx, p);
  }
  if (p.T <= 8) return launch_few<1, 1, false>(cx, p);
  if (p.T <= 16) return launch_few<2, 2, false>(cx, p);
  if (p.T <= 32) return launch_few<2, 4, false>(cx, p);
  return launch_few<4, 8, false>(cx, p);
}

}  // namespace nibble::ops

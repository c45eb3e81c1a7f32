// The arithmetic of products of few rows, which gives a row its bits: how columns are dealt to slices, the products of
// a chunk, and what becomes of the sums.
#pragma once

#include "ops/linear/fragment_source.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {

/// A row's columns are dealt to kSlices warps chunk by chunk: chunk c belongs to slice c % kSlices. A slice adds its
/// chunks in ascending order; the sums of slices are added as a tree, whose branches may lie in different blocks.
constexpr int kSlices = 8;

/// ((s0 + s1) + (s2 + s3)) + ..., where part(i) is the sum number i.
template <int kCount = kSlices, class Part>
__device__ inline float tree_sum(const Part& part, int first = 0) {
  if constexpr (kCount == 1) {
    return part(first);
  } else {
    return tree_sum<kCount / 2>(part, first) + tree_sum<kCount / 2>(part, first + kCount / 2);
  }
}

template <class Source>
constexpr int kChunkColumns = Source::kUnits* kUnitColumns;

/// sums += the products of one chunk of kTiles tiles with kColumns * 8 rows of x; `x` points at the lane's columns in
/// the chunk, `left` counts the columns behind them.
template <class Source, int kTiles, int kColumns>
__device__ inline void multiply(const typename Source::Chunk (&chunk)[kTiles], const __nv_bfloat16* x, int left,
                                int pitch, int rows, float (&sums)[kTiles][kColumns][4]) {
#pragma unroll
  for (int unit = 0; unit < Source::kUnits; ++unit) {
    typename Source::Scales scales[kTiles];
#pragma unroll
    for (int r = 0; r < kTiles; ++r) scales[r] = Source::unit_scales(chunk[r], unit);
      // The inputs of half a unit at a time, or many columns would not fit the registers.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 inputs[kColumns];
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const bool inside = n * 8 < rows && left > unit * kUnitColumns;
        inputs[n] = inside ? *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(n) * 8 * pitch +
                                                             unit * kUnitColumns + half * 8)
                           : uint4{};
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          uint32_t a[4];
          Source::operand(chunk[r], unit, half * 2 + s, scales[r], a);
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const uint32_t b[2] = {s == 0 ? inputs[n].x : inputs[n].z, s == 0 ? inputs[n].y : inputs[n].w};
            mma_bf16(sums[r][n], a, b);
          }
        }
      }
    }
  }
}

/// Elements from one row of x to the next in shared memory: 16 bytes more than a multiple of 256, so that the lanes of
/// neighbouring rows read other banks.
__host__ __device__ constexpr int shared_pitch(int columns) {
  return (columns + kPairColumns - 1) / kPairColumns * kPairColumns + 8;
}

__device__ inline float scaled(const DeviceWeight& w, int row, float sum) {
  return sum * (w.channel_scale == nullptr ? w.factor : w.channel_scale[row]);
}
__device__ inline float swiglu_of(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

}  // namespace nibble::ops

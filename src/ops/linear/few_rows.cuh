// The arithmetic of products of few rows, which gives a row its bits: how columns are dealt to slices, the products of
// a chunk, and what becomes of the sums.
#pragma once

#include <algorithm>
#include <span>

#include "ops/linear/device_weight.cuh"
#include "ops/linear/linears_cuda.h"
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

/// sums += the products of one chunk of kTiles tiles with kColumns * 8 rows of x; inputs_of(n, unit, half) are the
/// lane's eight columns of half a unit in its row of the n-th eight.
template <class Source, int kTiles, int kColumns, class Inputs>
__device__ inline void multiply(const typename Source::Chunk (&chunk)[kTiles], const Inputs& inputs_of,
                                float (&sums)[kTiles][kColumns][4]) {
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
      for (int n = 0; n < kColumns; ++n) inputs[n] = inputs_of(n, unit, half);
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

/// Columns as far as weights are packed.
__host__ __device__ constexpr int padded(int columns) {
  return (columns + kPairColumns - 1) / kPairColumns * kPairColumns;
}
/// Elements from one row of x to the next in shared memory: 16 bytes more than a multiple of 256, so that the lanes of
/// neighbouring rows read other banks.
__host__ __device__ constexpr int shared_pitch(int columns) {
  return padded(columns) + 8;
}

/// Of T rows there.
__host__ __device__ constexpr size_t input_bytes(int T, int columns) {
  return (static_cast<size_t>(T) * shared_pitch(columns) * 2 + 127) / 128 * 128;
}

__device__ inline float scaled(const DeviceWeight& w, int row, float sum) {
  return sum * (w.channel_scale == nullptr ? w.factor : w.channel_scale[row]);
}

struct FewRowsOutput {
  DeviceWeight weight;
  int first_item;  // items before this output's, of its format
  void* y;
  bool y_is_bf16;
};
/// The outputs of one weight format; its blocks begin at first_block.
struct FewRowsGroup {
  WeightFormat format;
  int first_output, outputs, items, first_block, blocks;
};
struct FewRows {
  static constexpr int kMaxOutputs = 4;
  FewRowsOutput outputs[kMaxOutputs];
  FewRowsGroup groups[kMaxOutputs];
  int group_count;
  const __nv_bfloat16* x;  // [T,columns]
  int T, pieces = 1;       // of x, one item after the other for the same weights
};

inline FewRows few_rows_of(const Tensor& x, std::span<const LinearOutput> outputs) {
  FewRows p{};
  p.x = static_cast<const __nv_bfloat16*>(x.raw());
  p.T = static_cast<int>(x.dim(0));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Linear& w = *outputs[i].weight;
    if (i == 0 || w.format != outputs[i - 1].weight->format) {
      p.groups[p.group_count++] = {w.format, static_cast<int>(i), 0, 0, 0, 0};
    }
    ++p.groups[p.group_count - 1].outputs;
    p.outputs[i] = {device_weight(w), 0, outputs[i].y.raw(), outputs[i].y.dtype() == DType::bf16};
  }
  return p;
}

/// Counts items of `tiles` tiles (SwiGLU: of gate, and as many of up) by a piece of x, and deals them to at most `most`
/// blocks, so that all are there at the same time: groups behind the first have a block per item and it has the rest,
/// or all have equal shares where these are many. Returns the number of all blocks.
inline unsigned deal_items(FewRows& p, int tiles, bool swiglu, int most) {
  int others = 0;
  for (int i = 0; i < p.group_count; ++i) {
    FewRowsGroup& group = p.groups[i];
    group.items = 0;
    for (int o = 0; o < (swiglu ? 1 : group.outputs); ++o) {
      FewRowsOutput& out = p.outputs[group.first_output + o];
      out.first_item = group.items;
      group.items += static_cast<int>((tiles_of(out.weight.rows) + tiles - 1) / tiles);
    }
    group.items *= p.pieces;
    if (i > 0) others += group.items;
  }
  int blocks = 0;
  for (int i = 0; i < p.group_count; ++i) {
    FewRowsGroup& group = p.groups[i];
    const int share = others < most / 2 ? most - (i == 0 ? others : 0) : most / p.group_count;
    group.blocks = std::min(group.items, share);
    group.first_block = blocks;
    blocks += group.blocks;
  }
  return static_cast<unsigned>(blocks);
}

__device__ inline const FewRowsGroup& own_group(const FewRows& p) {
  int index = 0;
  while (index + 1 < p.group_count && static_cast<int>(blockIdx.x) >= p.groups[index + 1].first_block) ++index;
  return p.groups[index];
}

/// Begins to copy eight columns of row t to shared memory; zeros behind the last column. Few rows are read past the L1
/// cache (launch_cuda.cuh says why), more through it, since the blocks of a multiprocessor read the same.
__device__ inline void copy_piece(const FewRows& p, int columns, int t, int column, __nv_bfloat16* to) {
  const bool inside = column < columns;
  const __nv_bfloat16* from = p.x + static_cast<int64_t>(t) * columns + (inside ? column : 0);
  const auto place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  if (p.T <= kEarlyRows) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
  }
}

/// Begins to copy x to shared memory, by all threads of a block.
__device__ inline void copy_inputs(const FewRows& p, int columns, __nv_bfloat16* to) {
  const int pitch = shared_pitch(columns), pieces = pitch / 8 - 1;
  for (int t = 0; t < p.T; ++t) {
    for (int i = static_cast<int>(threadIdx.x); i < pieces; i += static_cast<int>(blockDim.x)) {
      copy_piece(p, columns, t, i * 8, to + t * pitch + i * 8);
    }
  }
}

/// All that the threads of a block copied is there.
__device__ inline void copies_are_there() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
}

__device__ inline void store(const FewRowsOutput& out, int64_t index, float value) {
  if (out.y_is_bf16) {
    static_cast<__nv_bfloat16*>(out.y)[index] = __float2bfloat16_rn(value);
  } else {
    static_cast<float*>(out.y)[index] = value;
  }
}

}  // namespace nibble::ops

// Inputs of warpgroup products as their blocks want them in shared memory: where columns lie in a row of the image.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/linear/nvfp4_fragment.h"

namespace nibble::ops {

/// A row has eight pieces of 16 bytes, which are four pairs of columns: lane 4g+c of step j multiplies the columns
/// 16c+4j+{0,1,2,3} at the positions 16j + {2c, 2c+1, 2c+8, 2c+9} (nvfp4_fragment.h), so piece q holds the columns
/// 16c+2q and 16c+2q+1 for c = 0..3.
constexpr int kRowPieces = 8;
constexpr int kRowBytes = kRowPieces * 16;
static_assert(kRowBytes == kUnitColumns * 2);

/// Piece q of a row, from its columns in ascending order; zeros behind the first `columns` of them (a multiple of 16).
__device__ inline uint4 image_piece(const __nv_bfloat16* unit, int columns, int q) {
  const auto pair = [&](int block) {
    return 16 * block < columns ? *reinterpret_cast<const uint32_t*>(unit + 16 * block + 2 * q) : 0;
  };
  return {pair(0), pair(1), pair(2), pair(3)};
}
/// Where it stands among the pieces of a unit, swizzled as hopper::swizzled_rows says.
__device__ inline int image_place(int row, int q) {
  return row * kRowPieces + (q ^ row % 8);
}

/// Writes four neighbouring columns (the first a multiple of 4) of a row of a tile to the units of that tile.
__device__ inline void store_to_image(uint4* units, int tile_rows, int row, int column, uint32_t low, uint32_t high) {
  uint4* const unit = units + static_cast<int64_t>(column / kUnitColumns) * tile_rows * kRowPieces;
  const int in_unit = column % kUnitColumns, block = in_unit / 16, q = in_unit % 16 / 2;
  reinterpret_cast<uint32_t*>(unit + image_place(row, q))[block] = low;
  reinterpret_cast<uint32_t*>(unit + image_place(row, q + 1))[block] = high;
}

}  // namespace nibble::ops

// The operands of 16x8x16 products out of tiles of BF16 in shared memory.
#pragma once

#include "tensor/hopper.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {

// `tile` is row-major with `stride` elements per row; a thread gets its part of the named block.

/// a[i,k] = tile[row+i, column+k], 16x16.
__device__ inline void load_a(const uint16_t* tile, int stride, int row, int column, uint32_t (&a)[4]) {
  const int lane = threadIdx.x % 32;
  load_matrices(hopper::shared_address(tile + (row + lane % 16) * stride + column + lane / 16 * 8), a);
}
/// a[i,k] = tile[row+k, column+i], 16x16.
__device__ inline void load_a_transposed(const uint16_t* tile, int stride, int row, int column, uint32_t (&a)[4]) {
  const int lane = threadIdx.x % 32;
  load_matrices_turned(
      hopper::shared_address(tile + (row + lane / 16 * 8 + lane % 8) * stride + column + lane / 8 % 2 * 8), a);
}
/// b[k,j] = tile[row+j, column+k], 16x16: two operands of 8 columns j.
__device__ inline void load_b(const uint16_t* tile, int stride, int row, int column, uint32_t (&b)[2][2]) {
  const int lane = threadIdx.x % 32;
  uint32_t r[4];
  load_matrices(hopper::shared_address(tile + (row + lane / 16 * 8 + lane % 8) * stride + column + lane / 8 % 2 * 8),
                r);
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}
/// b[k,j] = tile[row+k, column+j], 16x16.
__device__ inline void load_b_transposed(const uint16_t* tile, int stride, int row, int column, uint32_t (&b)[2][2]) {
  const int lane = threadIdx.x % 32;
  uint32_t r[4];
  load_matrices_turned(hopper::shared_address(tile + (row + lane % 16) * stride + column + lane / 16 * 8), r);
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

/// The sums of a 16x16 block, as two products of 8 columns leave them, as the operand a of the next product.
__device__ inline void sums_as_a(const float (&left)[4], const float (&right)[4], uint32_t (&a)[4]) {
  a[0] = pack_bf16(left[0], left[1]), a[1] = pack_bf16(left[2], left[3]);
  a[2] = pack_bf16(right[0], right[1]), a[3] = pack_bf16(right[2], right[3]);
}

}  // namespace nibble::ops

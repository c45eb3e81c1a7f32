// The image of inputs of warpgroup products.
#include <algorithm>

#include "ops/linear/input_image.cuh"
#include "ops/linear/linears_cuda.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

/// x [T,columns] as the image, zeros behind its last row and column. A block per token tile and unit.
template <int kTokens>
__global__ void __launch_bounds__(256) arrange(const __nv_bfloat16* x, int T, int columns, int units, uint4* image) {
  const int unit = static_cast<int>(blockIdx.x), first = static_cast<int>(blockIdx.y) * kTokens;
  uint4* const to = image + (static_cast<int64_t>(blockIdx.y) * units + unit) * (kTokens * kRowPieces);
  wait_for_predecessor();
  let_successor_start();  // at once: the weights of the product come meanwhile
#pragma unroll
  for (int i = threadIdx.x; i < kTokens * kRowPieces; i += 256) {
    const int row = i / kRowPieces, q = i % kRowPieces, column = unit * kUnitColumns;
    const __nv_bfloat16* from = x + static_cast<int64_t>(first + row) * columns + column;
    to[image_place(row, q)] = first + row < T ? image_piece(from, columns - column, q) : uint4{};
  }
}

}  // namespace

Tensor input_image(Context& cx, int64_t T, int64_t columns) {
  const int64_t tile = image_tile(T);
  return cx.arena.take(DType::u8, {(T + tile - 1) / tile * tile, pairs_of(columns) * kPairColumns * 2}).rows(0, T);
}

void arrange_inputs(Context& cx, const Tensor& x, const Tensor& image) {
  const int64_t tile = image_tile(x.dim(0)), tiles = (x.dim(0) + tile - 1) / tile, units = pairs_of(x.dim(1)) * 2;
  const auto kernel = tile == 32 ? arrange<32> : tile == 64 ? arrange<64> : arrange<128>;
  launch(cx, "linears", kernel, dim3(static_cast<unsigned>(units), static_cast<unsigned>(tiles)), dim3(256), 0,
         static_cast<const __nv_bfloat16*>(x.raw()), static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)),
         static_cast<int>(units), static_cast<uint4*>(image.raw()));
}

Tensor image_of(Context& cx, const Tensor& x) {
  if (x.dtype() == DType::u8) return x;
  const Tensor image = input_image(cx, x.dim(0), x.dim(1));
  arrange_inputs(cx, x, image);
  return image;
}

size_t linears_scratch_bytes(int64_t T, int64_t largest_in) {
  const int64_t tile = image_tile(T), rows = (T + tile - 1) / tile * tile;
  return std::max(block_scaled_scratch_bytes(T, largest_in),
                  static_cast<size_t>(rows * pairs_of(largest_in) * kPairColumns * 2));
}

}  // namespace nibble::ops

// The inputs of warpgroup products as their blocks want them in shared memory.
#include <algorithm>

#include "ops/linear/linears_cuda.h"
#include "ops/linear/nvfp4_fragment.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kRowBytes = kUnitColumns * 2;

/// Where column k of a unit stands in a row of the image: lane 4g+c of step j multiplies the columns 16c+4j+{0,1,2,3}
/// at the positions 16j + {2c, 2c+1, 2c+8, 2c+9} (nvfp4_fragment.h).
__device__ constexpr int position_of(int k) {
  return k % 16 / 4 * 16 + k % 4 / 2 * 8 + k / 16 * 2 + k % 2;
}

/// x [T,columns] as the image, zeros behind its last row and column. A block per token tile and unit.
template <int kTokens>
__global__ void __launch_bounds__(256) arrange(const __nv_bfloat16* x, int T, int columns, int units, uint8_t* image) {
  constexpr int kUnitBytes = kTokens * kRowBytes;
  __shared__ alignas(16) uint8_t tile[kUnitBytes];
  const int unit = static_cast<int>(blockIdx.x), first = static_cast<int>(blockIdx.y) * kTokens;
  wait_for_predecessor();
  let_successor_start();  // at once: the weights of the product come meanwhile
  for (int i = threadIdx.x; i < kTokens * 8; i += 256) {
    const int row = i / 8, k = i % 8 * 8, column = unit * kUnitColumns + k;
    uint4 v{};
    if (first + row < T && column < columns) {
      v = *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(first + row) * columns + column);
    }
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int position = position_of(k + 2 * w);
      *reinterpret_cast<uint32_t*>(tile + row * kRowBytes + ((position / 8 ^ row % 8) * 16) + position % 8 * 2) =
          words[w];
    }
  }
  __syncthreads();
  uint8_t* to = image + (static_cast<int64_t>(blockIdx.y) * units + unit) * kUnitBytes;
  for (int i = threadIdx.x; i < kUnitBytes / 16; i += 256) {
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(tile)[i];
  }
}

}  // namespace

Tensor arrange_inputs(Context& cx, const Tensor& x, int tile_rows) {
  const int64_t tiles = (x.dim(0) + tile_rows - 1) / tile_rows, units = pairs_of(x.dim(1)) * 2;
  const Tensor image = cx.arena.take(DType::u8, {tiles, units, tile_rows, kRowBytes});
  const auto kernel = tile_rows == 32 ? arrange<32> : tile_rows == 64 ? arrange<64> : arrange<128>;
  NIBBLE_CHECK(tile_rows == 32 || tile_rows == 64 || tile_rows == 128);
  launch(cx, "linears", kernel, dim3(static_cast<unsigned>(units), static_cast<unsigned>(tiles)), dim3(256), 0,
         static_cast<const __nv_bfloat16*>(x.raw()), static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)),
         static_cast<int>(units), image.u8());
  return image;
}

size_t linears_scratch_bytes(int64_t T, int64_t largest_in) {
  constexpr int64_t kTallest = 128;  // tile
  const int64_t rows = (T + kTallest - 1) / kTallest * kTallest;
  return std::max(block_scaled_scratch_bytes(T, largest_in),
                  static_cast<size_t>(rows * pairs_of(largest_in) * kPairColumns * 2));
}

}  // namespace nibble::ops

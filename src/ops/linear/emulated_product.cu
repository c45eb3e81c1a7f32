#include "ops/linear/emulated_product.h"

#include "ops/linear/block_scaled.cuh"

namespace nibble::ops {
namespace {

/// mma m16n8k64 by shuffles, written from the fragment layout of the PTX ISA (see nvfp4_operand_test.cc).
struct EmulatedProduct {
  __device__ __noinline__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                               uint32_t a_scales, uint32_t b_scales) {
    constexpr uint32_t kAll = 0xFFFFFFFF;
    const int lane = static_cast<int>(threadIdx.x % 32);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4, below = i / 2, column = lane % 4 * 2 + i % 2;
      const uint32_t sa = __shfl_sync(kAll, a_scales, row * 4 + below), sb = __shfl_sync(kAll, b_scales, column * 4);
      for (int k = 0; k < 64; k += 8) {
        const int from = k % 32 / 8, part = k / 32;  // lane of four and register
        const uint32_t x = __shfl_sync(kAll, a[below + 2 * part], row * 4 + from);
        const uint32_t y = __shfl_sync(kAll, part == 0 ? b0 : b1, column * 4 + from);
        float sum = 0;
        for (int j = 0; j < 32; j += 4) {
          sum += e2m1_to_f32(static_cast<uint8_t>(x >> j & 15)) * e2m1_to_f32(static_cast<uint8_t>(y >> j & 15));
        }
        const int byte = k / 16 * 8;
        d[i] += sum * (e4m3_to_f32(static_cast<uint8_t>(sa >> byte)) * e4m3_to_f32(static_cast<uint8_t>(sb >> byte)));
      }
    }
  }
};

}  // namespace

void block_scaled_emulated(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  run_block_scaled<EmulatedProduct>(cx, x, outputs, swiglu);
}

}  // namespace nibble::ops

// FP4 products where the hardware has them.
#include "ops/linear/block_scaled.cuh"
#include "tensor/blackwell.cuh"

namespace nibble::ops {

bool has_block_scaled_products(Device device) {
  return device_attribute(device, cudaDevAttrComputeCapabilityMajor) == 12;
}

size_t block_scaled_scratch_bytes(int64_t T, int64_t in) {
  constexpr size_t kAlignment = 256;  // of each piece, at most
  const auto tiles = static_cast<size_t>(tiles_of(T)), pairs = static_cast<size_t>(pairs_of(in));
  return tiles * pairs * (kPairCodeBytes + kPairScaleBytes) + tiles * kTileRows * sizeof(float) + 3 * kAlignment;
}

void block_scaled_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  run_block_scaled<blackwell::Fp4Product>(cx, x, outputs, swiglu);
}

}  // namespace nibble::ops

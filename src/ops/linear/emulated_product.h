// For tests: block_scaled_cuda with a product that any GPU has, so that all but the one instruction can be run.
#pragma once

#include "ops/linear/linears_cuda.h"

namespace nibble::ops {

/// As block_scaled_cuda, for weights of nvfp4_to_device(cx, w, true, buffers).
void block_scaled_emulated(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);

}  // namespace nibble::ops

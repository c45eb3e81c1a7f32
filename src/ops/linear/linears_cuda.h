// The kernels behind linears and linear_swiglu on a GPU.
#pragma once

#include "ops/linear/linears_backends.h"

namespace nibble::ops {

/// Up to this many rows every weight is read once and rows keep their bits whatever stands beside them.
constexpr int64_t kFewRows = 64;

void few_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);
void many_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);

}  // namespace nibble::ops

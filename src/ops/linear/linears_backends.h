// What linears.cc chooses from.
#pragma once

#include "ops/linear/linears.h"

namespace nibble::ops {

void linears_cpu(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs);
void linears_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs);
void linear_swiglu_cpu(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y);
void linear_swiglu_cuda(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y);
Tensor inputs_of_cpu(Context& cx, int64_t T, std::span<const Linear* const> readers);
Tensor inputs_of_cuda(Context& cx, int64_t T, std::span<const Linear* const> readers);

}  // namespace nibble::ops

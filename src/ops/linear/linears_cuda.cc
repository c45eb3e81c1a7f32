#include "ops/linear/linears_cuda.h"

#include <algorithm>

#include "tensor/dispatch.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

void products(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  NIBBLE_CHECK(x.dtype() == DType::bf16);
  const int64_t T = x.dim(0);
  if (T <= kFewRows) return few_rows_cuda(cx, x, outputs, swiglu);
  if (has_warpgroup_products(cx.device)) return many_rows_cuda(cx, x, outputs, swiglu);
  for (int64_t begin = 0; begin < T; begin += kFewRows) {
    const int64_t end = std::min(begin + kFewRows, T);
    LinearOutput part[4];
    for (size_t i = 0; i < outputs.size(); ++i) {
      part[i] = {outputs[i].weight, outputs[i].y.empty() ? Tensor() : outputs[i].y.rows(begin, end)};
    }
    few_rows_cuda(cx, x.rows(begin, end), {part, outputs.size()}, swiglu);
  }
}

}  // namespace

void linears_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs) {
  products(cx, x, outputs, false);
}

void linear_swiglu_cuda(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y) {
  if (gate.format == up.format) {
    const LinearOutput both[] = {{&gate, y}, {&up, {}}};
    return products(cx, x, both, true);
  }
  unsupported_device("linear_swiglu of two formats");
}

}  // namespace nibble::ops

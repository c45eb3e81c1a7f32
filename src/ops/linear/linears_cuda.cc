#include "ops/linear/linears_cuda.h"

#include <algorithm>

#include "tensor/dispatch.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

bool is_nvfp4(const LinearOutput& o) {
  return o.weight->format == WeightFormat::nvfp4;
}

/// Of weights that take their inputs as they are.
void plain_products(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  const int64_t T = x.dim(0);
  const bool warpgroups = has_warpgroup_products(cx.device);
  if (warpgroups && T > kNarrowRows && T <= kWideRows && std::ranges::any_of(outputs, is_nvfp4)) {
    // Outputs of other formats beside NVFP4 are small.
    for (auto begin = outputs.begin(), end = begin; begin != outputs.end(); begin = end) {
      const bool wide = is_nvfp4(*begin);
      end = std::find_if(begin, outputs.end(), [&](const LinearOutput& o) { return is_nvfp4(o) != wide; });
      (wide ? wide_rows_cuda : few_rows_cuda)(cx, x, {begin, end}, swiglu);
    }
    return;
  }
  if (T <= kFewRows || !warpgroups) return few_rows_cuda(cx, x, outputs, swiglu);
  many_rows_cuda(cx, x, outputs, swiglu);
}

/// Outputs in a row whose inputs are treated alike go together; what is treated not at all is one such row.
void products(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  NIBBLE_CHECK(x.dtype() == DType::bf16);
  for (size_t begin = 0, end = 0; begin < outputs.size(); begin = end) {
    const Linear& first = *outputs[begin].weight;
    for (end = begin + 1; end < outputs.size() && same_inputs(*outputs[end].weight, first);) ++end;
    const auto alike = outputs.subspan(begin, end - begin);
    if (first.inputs == InputRounding::none) {
      plain_products(cx, x, alike, swiglu);
    } else {
      block_scaled_cuda(cx, x, alike, swiglu);
    }
  }
}

}  // namespace

void linears_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs) {
  products(cx, x, outputs, false);
}

void linear_swiglu_cuda(Context& cx, const Tensor& x, const Linear& gate, const Linear& up, Tensor& y) {
  if (alike_for_swiglu(gate, up)) {
    const LinearOutput both[] = {{&gate, y}, {&up, {}}};
    return products(cx, x, both, true);
  }
  unsupported_device("linear_swiglu of two formats");
}

}  // namespace nibble::ops

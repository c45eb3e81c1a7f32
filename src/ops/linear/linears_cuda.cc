#include "ops/linear/linears_cuda.h"

#include <algorithm>

#include "tensor/dispatch.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

bool is_nvfp4(const LinearOutput& o) {
  return o.weight->format == WeightFormat::nvfp4;
}

/// Of outputs that are all NVFP4, or none of them. A few rows of weights (in_proj_a and in_proj_b) do not fill large
/// tiles.
void products_of_run(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  constexpr int64_t kSmallRows = 256;
  int64_t rows = 0;
  for (const LinearOutput& o : outputs) rows += o.weight->out;
  const int64_t T = x.dim(0);
  if (is_nvfp4(outputs[0]) && T > kNarrowRows && T <= kWideRows) return wide_rows_cuda(cx, x, outputs, swiglu);
  if (T <= kFewRows || rows <= kSmallRows) return few_rows_cuda(cx, x, outputs, swiglu);
  many_rows_cuda(cx, x, outputs, swiglu);
}

/// Of weights that take their inputs as they are.
void plain_products(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  // Up to kNarrowRows all formats share a launch.
  if (x.dim(0) <= kNarrowRows || !has_warpgroup_products(cx.device)) return few_rows_cuda(cx, x, outputs, swiglu);
  for (auto begin = outputs.begin(), end = begin; begin != outputs.end(); begin = end) {
    const bool packed = is_nvfp4(*begin);
    end = std::find_if(begin, outputs.end(), [&](const LinearOutput& o) { return is_nvfp4(o) != packed; });
    products_of_run(cx, x, {begin, end}, swiglu);
  }
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

#include "ops/linear/linears_cuda.h"

#include <algorithm>

#include "tensor/dispatch.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

/// Of weights of any format.
void products_of_any(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
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

bool is_nvfp4(const LinearOutput& o) {
  return o.weight->format == WeightFormat::nvfp4;
}

/// Of weights that take their inputs as they are.
void plain_products(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  if (x.dim(0) <= kNarrowRows || x.dim(0) > kWideRows || !has_warpgroup_products(cx.device)) {
    return products_of_any(cx, x, outputs, swiglu);
  }
  for (auto begin = outputs.begin(), end = begin; begin != outputs.end(); begin = end) {
    const bool wide = is_nvfp4(*begin);
    end = std::find_if(begin, outputs.end(), [&](const LinearOutput& o) { return is_nvfp4(o) != wide; });
    (wide ? wide_rows_cuda : products_of_any)(cx, x, {begin, end}, swiglu);
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

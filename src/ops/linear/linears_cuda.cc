#include "ops/linear/linears_cuda.h"

#include <algorithm>

#include "ops/linear/nvfp4_fragment.h"
#include "tensor/dispatch.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

bool is_nvfp4(const LinearOutput& o) {
  return o.weight->format == WeightFormat::nvfp4;
}

enum class Kernel { few, wide, many };

/// Of weights that are all NVFP4, or none of them, with `rows` rows together. A few (in_proj_a and in_proj_b) do not
/// fill large tiles. Up to kNarrowRows rows of inputs, and where no warpgroups multiply, it is `few` for all formats.
Kernel kernel_for(int64_t T, bool nvfp4, int64_t rows) {
  constexpr int64_t kSmallRows = 256;
  if (nvfp4 && T > kNarrowRows && T <= kWideRows) return Kernel::wide;
  return T <= kFewRows || rows <= kSmallRows ? Kernel::few : Kernel::many;
}

/// Whether products with it take their inputs from an image, and SwiGLU may write one.
bool takes_image(const Context& cx, int64_t T, const Linear& w, int64_t rows) {
  return w.inputs == InputRounding::none && T > kNarrowRows && has_warpgroup_products(cx.device) &&
         kernel_for(T, w.format == WeightFormat::nvfp4, rows) != Kernel::few;
}

/// Of outputs that are all NVFP4, or none of them.
void products_of_run(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu) {
  int64_t rows = 0;
  for (const LinearOutput& o : outputs) rows += o.weight->out;
  switch (kernel_for(x.dim(0), is_nvfp4(outputs[0]), rows)) {
    case Kernel::few:
      return few_rows_cuda(cx, x, outputs, swiglu);
    case Kernel::wide:
      return wide_rows_cuda(cx, x, outputs, swiglu);
    case Kernel::many:
      return many_rows_cuda(cx, x, outputs, swiglu);
  }
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
  NIBBLE_CHECK(x.dtype() == DType::bf16 || x.dtype() == DType::u8);
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
  if (!alike_for_swiglu(gate, up)) unsupported_device("linear_swiglu of two formats");
  if (y.dtype() == DType::u8 && !takes_image(cx, x.dim(0), gate, gate.out + up.out)) {
    const Arena::Scope scope(cx.arena);
    Tensor plain = cx.arena.take(DType::bf16, {x.dim(0), gate.out});
    linear_swiglu_cuda(cx, x, gate, up, plain);
    return arrange_inputs(cx, plain, y);
  }
  const LinearOutput both[] = {{&gate, y}, {&up, {}}};
  products(cx, x, both, true);
}

Tensor inputs_of_cuda(Context& cx, int64_t T, std::span<const Linear* const> readers) {
  const int64_t columns = readers[0]->in;
  const bool image = columns % kPairColumns == 0 &&
                     std::ranges::all_of(readers, [&](const Linear* w) { return takes_image(cx, T, *w, w->out); });
  return image ? input_image(cx, T, columns) : cx.arena.take(DType::bf16, {T, columns});
}

}  // namespace nibble::ops

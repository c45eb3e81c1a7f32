// The kernels behind linears and linear_swiglu on a GPU.
#pragma once

#include "ops/linear/linears_backends.h"

namespace nibble::ops {

/// Up to this many rows every weight is read once and rows keep their bits whatever stands beside them.
constexpr int64_t kFewRows = 64;

/// Any T; beyond kFewRows it reads weights once per piece of as many rows.
void few_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);
/// Up to four rows, at least one weight NVFP4, inputs that leave weights some room, sm_90 or later; false if not so.
bool packed_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);
/// More than kFewRows rows on sm_90; x, and y of SwiGLU, may be images.
void many_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);

/// NVFP4 weights with more than kNarrowRows and up to kWideRows rows of inputs on sm_90; for T <= kFewRows with the
/// bits of few_rows_cuda. x, and y of SwiGLU, may be images.
constexpr int64_t kNarrowRows = 16, kWideRows = 128;
void wide_rows_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);

/// Inputs [T,columns] as operands of warpgroup products on sm_90: their image is [tiles of image_tile(T) rows][units of
/// 64 columns][rows][128 bytes] (input_image.cuh), as far as the last tile and pair of units reach. As a tensor it is
/// u8 [T, bytes of a row].
constexpr int image_tile(int64_t T) {
  return T <= 32 ? 32 : T <= 64 ? 64 : 128;
}
/// Room for one, in cx.arena.
Tensor input_image(Context& cx, int64_t T, int64_t columns);
/// `image` becomes that of x, with zeros behind the last row and column.
void arrange_inputs(Context& cx, const Tensor& x, const Tensor& image);
/// x itself if it is an image, or that of x in cx.arena.
Tensor image_of(Context& cx, const Tensor& x);

/// NVFP4 weights whose inputs are rounded to NVFP4, the same way for all outputs. For any T a row's bits depend on that
/// row alone.
void block_scaled_cuda(Context& cx, const Tensor& x, std::span<const LinearOutput> outputs, bool swiglu);
/// An NVFP4 weight packed for the GPU, as nvfp4_operand.h says or as nvfp4_fragment.h does.
Result<Linear> nvfp4_to_device(Context& cx, const Linear& w, bool as_operand, std::vector<Buffer>& buffers,
                               Upload* upload = nullptr);
/// Tensor cores multiply NVFP4 with NVFP4: compute capability 12.
bool has_block_scaled_products(Device device);
/// What block_scaled_cuda takes from cx.arena.
size_t block_scaled_scratch_bytes(int64_t T, int64_t in);

}  // namespace nibble::ops

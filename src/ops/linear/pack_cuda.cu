// Weights on their way to a GPU: NVFP4 in the order of nvfp4_fragment.h, or in that of nvfp4_operand.h where inputs are
// rounded to NVFP4 too; everything else as it is stored.
#include <algorithm>

#include "ops/linear/linears_cuda.h"
#include "ops/linear/nvfp4_operand.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

/// One thread per lane of a unit: 32 codes and 2 scales. `rows` counts those of the slab that `codes` and `scales`
/// hold.
__global__ void pack(const uint8_t* codes, const uint8_t* scales, int rows, int columns, int64_t first_tile,
                     uint8_t* packed_codes, uint8_t* packed_scales) {
  const int64_t pairs = pairs_of(columns), units = 2 * pairs;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int lane = static_cast<int>(index % 32);
  const int64_t unit = index / 32 % units, tile = index / 32 / units;
  wait_for_predecessor();
  let_successor_start();
  if (tile >= tiles_of(rows)) return;
  const int column = static_cast<int>(unit) * kUnitColumns + lane % 4 * 16;
  uint32_t words[4] = {};
#pragma unroll
  for (int high = 0; high < 2; ++high) {
    const int row = static_cast<int>(tile) * kTileRows + lane / 4 + 8 * high;
    uint8_t scale = 0;
    if (row < rows && column < columns) {
      const int64_t block = (static_cast<int64_t>(row) * columns + column) / 16;
      scale = scales[block];
      for (int i = 0; i < 16; ++i) {
        const uint32_t code = scale == 0 ? 0 : codes[block * 8 + i / 2] >> (i % 2 * 4) & 15;
        words[i / 4] |= place_code(code, i % 4 / 2 * 2 + high, i % 2);
      }
    }
    const int64_t pair = (first_tile + tile) * pairs + unit / 2;
    packed_scales[pair * kPairScaleBytes + lane * 4 + unit % 2 * 2 + high] = place_scale(scale);
  }
  const int64_t at = ((first_tile + tile) * units + unit) * 512 + lane * 16;
  *reinterpret_cast<uint4*>(packed_codes + at) = {words[0], words[1], words[2], words[3]};
}

/// One thread per lane of a unit: four words of codes and, of lanes below 16, the scales of a row.
__global__ void pack_operand(const uint8_t* codes, const uint8_t* scales, int rows, int columns, int64_t first_tile,
                             uint8_t* packed_codes, uint8_t* packed_scales) {
  const int64_t pairs = pairs_of(columns), units = 2 * pairs;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int lane = static_cast<int>(index % 32);
  const int64_t unit = index / 32 % units, tile = index / 32 / units;
  wait_for_predecessor();
  let_successor_start();
  if (tile >= tiles_of(rows)) return;
  uint32_t words[4];
  gather_words(codes, rows, columns, tile, unit, lane, words);
  const int64_t at = unit_place(first_tile + tile, unit, pairs);
  *reinterpret_cast<uint4*>(packed_codes + at + lane * 16) = {words[0], words[1], words[2], words[3]};
  if (lane >= kTileRows) return;
  *reinterpret_cast<uint32_t*>(packed_scales + at / 8 + scales_of_row(lane) * 4) =
      gather_scales(scales, rows, columns, tile * kTileRows + lane, unit);
}

Status refused(const char* what) {
  return unsupported("--device cuda: {}", what);
}

void copy(Context& cx, Upload* upload, const Tensor& host, const Tensor& on_device) {
  upload != nullptr ? upload->copy(host, on_device) : cx.stream->copy(host, on_device);
}

Result<Tensor> copy_to_device(Context& cx, Upload* upload, const Tensor& host, std::vector<Buffer>& buffers) {
  NIBBLE_TRY(buffer, Buffer::on(cx.device, host.bytes()));
  const Tensor on_device = buffer.tensor(host.dtype(), host.shape());
  copy(cx, upload, host, on_device);
  buffers.push_back(std::move(buffer));
  return on_device;
}

}  // namespace

Result<Linear> nvfp4_to_device(Context& cx, const Linear& w, bool as_operand, std::vector<Buffer>& buffers,
                               Upload* upload) {
  Linear out = w;
  const int64_t tiles = tiles_of(w.out), pairs = pairs_of(w.in);
  NIBBLE_TRY(codes, Buffer::on(cx.device, static_cast<size_t>(tiles * pairs * kPairCodeBytes)));
  NIBBLE_TRY(scales, Buffer::on(cx.device, static_cast<size_t>(tiles * pairs * kPairScaleBytes)));
  out.weight = codes.tensor(DType::u8, {tiles * pairs * kPairCodeBytes});
  out.block_scale = scales.tensor(DType::f8e4m3, {tiles * pairs * kPairScaleBytes});

  constexpr int64_t kSlab = int64_t{32} << 20;  // bytes of codes that are on their way at a time
  const int64_t slab_rows = std::max<int64_t>(kSlab / (w.in / 2) / kTileRows, 1) * kTileRows;
  for (int64_t row = 0; row < w.out; row += slab_rows) {
    const Arena::Scope scope(cx.arena);
    const int64_t rows = std::min(slab_rows, w.out - row);
    const Tensor c = cx.arena.take(DType::u8, {rows, w.in / 2}), s = cx.arena.take(DType::f8e4m3, {rows, w.in / 16});
    copy(cx, upload, w.weight.rows(row, row + rows), c);
    copy(cx, upload, w.block_scale.rows(row, row + rows), s);
    const int64_t threads = tiles_of(rows) * pairs * 2 * 32;
    launch(cx, "pack", as_operand ? pack_operand : pack, dim3(static_cast<unsigned>((threads + 255) / 256)), dim3(256),
           0, c.u8(), s.u8(), static_cast<int>(rows), static_cast<int>(w.in), row / kTileRows, out.weight.u8(),
           out.block_scale.u8());
  }
  buffers.push_back(std::move(codes));
  buffers.push_back(std::move(scales));
  return out;
}

Result<Linear> linear_to_device(Context& cx, const Linear& w, std::vector<Buffer>& buffers, Upload* upload) {
  const bool block_scaled = w.format == WeightFormat::nvfp4 && w.inputs != InputRounding::none &&
                            w.inputs != InputRounding::fp8 && has_block_scaled_products(cx.device);
  if (w.inputs != InputRounding::none && !block_scaled) {
    return refused("weights whose inputs are rounded (W4A4, W8A8)")
        .with_hint("--act a16 runs them with BF16 inputs; W4A4 has kernels for sm_120a and sm_121a");
  }
  if (!w.low_rank_a.empty()) return refused("weights with a low-rank branch (SVDQuant)").with_hint("use --device cpu");
  if (w.format == WeightFormat::f32) return refused("weights in F32").with_hint("nibble convert --format bf16");
  if (w.in % 16 != 0) return refused("a linear whose inputs are not a multiple of 16").with_hint("use --device cpu");
  if (w.format != WeightFormat::nvfp4) {
    Linear out = w;
    NIBBLE_TRY(weight, copy_to_device(cx, upload, w.weight, buffers));
    out.weight = weight;
    if (!w.channel_scale.empty()) {
      NIBBLE_TRY(scales, copy_to_device(cx, upload, w.channel_scale, buffers));
      out.channel_scale = scales;
    }
    return out;
  }
  return nvfp4_to_device(cx, w, block_scaled, buffers, upload);
}

}  // namespace nibble::ops

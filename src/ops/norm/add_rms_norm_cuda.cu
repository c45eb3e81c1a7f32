#include <algorithm>

#include "ops/linear/input_image.cuh"
#include "ops/linear/linears_cuda.h"
#include "ops/norm/add_rms_norm.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kMostThreads = 1024;

/// Where n goes: rows [T,H], or an image.
struct Normed {
  __nv_bfloat16* rows;  // or null
  uint4* image;
  int T, tile;

  __device__ void store(int row, int column, int H, uint32_t low, uint32_t high) const {
    if (rows != nullptr) {
      *reinterpret_cast<uint2*>(rows + static_cast<int64_t>(row) * H + column) = {low, high};
    } else {
      uint4* const units = image + static_cast<int64_t>(row / tile) * (H / kUnitColumns) * tile * kRowPieces;
      store_to_image(units, tile, row % tile, column, low, high);
    }
  }
};

/// A block per row, kTurns times four neighbouring columns per thread: all are loaded before anything is stored, so
/// that a row waits for memory once. Which thread adds which squares depends on H alone.
template <int kTurns>
__global__ void __launch_bounds__(kMostThreads)
    norm_rows(const __nv_bfloat16* y, const float* w, float eps, int H, float* h, Normed n) {
  __shared__ float sums[kMostThreads / 32];
  const int row = static_cast<int>(blockIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t at = static_cast<int64_t>(row) * H;
  float4 gain[kTurns];
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int column = (i * threads + static_cast<int>(threadIdx.x)) * 4;
    if (column < H) gain[i] = *reinterpret_cast<const float4*>(w + column);
  }
  const bool early = gridDim.x <= kEarlyNormRows;
  if (early) let_successor_start();
  wait_for_predecessor();
  if (!early) let_successor_start();
  if (row >= n.T) {  // the image's last tile reaches behind the rows
    for (int column = static_cast<int>(threadIdx.x) * 4; column < H; column += threads * 4)
      n.store(row, column, H, 0, 0);
    return;
  }
  float4 v[kTurns];
  uint2 add[kTurns];
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int column = (i * threads + static_cast<int>(threadIdx.x)) * 4;
    v[i] = {0, 0, 0, 0};
    if (column >= H) continue;
    v[i] = __ldcg(reinterpret_cast<const float4*>(h + at + column));
    if (y != nullptr) add[i] = __ldcg(reinterpret_cast<const uint2*>(y + at + column));
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int column = (i * threads + static_cast<int>(threadIdx.x)) * 4;
    if (y != nullptr && column < H) {
      const float2 a = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&add[i].x));
      const float2 b = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&add[i].y));
      v[i] = {v[i].x + a.x, v[i].y + a.y, v[i].z + b.x, v[i].w + b.y};
      *reinterpret_cast<float4*>(h + at + column) = v[i];
    }
    squares += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
  }
  squares = warp_sum(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  const float total = warp_sum(threadIdx.x % 32 < threads / 32 ? sums[threadIdx.x % 32] : 0.0f);
  const float r = 1.0f / sqrtf(total / static_cast<float>(H) + eps);
#pragma unroll
  for (int i = 0; i < kTurns; ++i) {
    const int column = (i * threads + static_cast<int>(threadIdx.x)) * 4;
    if (column >= H) continue;
    n.store(row, column, H, pack_bf16(v[i].x * r * (1 + gain[i].x), v[i].y * r * (1 + gain[i].y)),
            pack_bf16(v[i].z * r * (1 + gain[i].z), v[i].w * r * (1 + gain[i].w)));
  }
}

}  // namespace

void add_rms_norm_cuda(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n) {
  const auto H = static_cast<int>(h.dim(1));
  NIBBLE_CHECK(H % 4 == 0 && H <= 4 * kMostThreads * 4);
  const auto T = static_cast<int>(h.dim(0));
  const bool image = n.dtype() == DType::u8;
  NIBBLE_CHECK((image || n.dtype() == DType::bf16) && (y.empty() || y.dtype() == DType::bf16));
  const int threads = std::min((H / 4 + 31) / 32 * 32, kMostThreads), turns = (H / 4 + threads - 1) / threads;
  const auto* from = static_cast<const __nv_bfloat16*>(y.raw());
  const int tile = image ? image_tile(T) : 1;
  const Normed to{image ? nullptr : static_cast<__nv_bfloat16*>(n.raw()),
                  image ? static_cast<uint4*>(n.raw()) : nullptr, T, tile};
  const auto run = [&](auto kernel) {
    launch(cx, "add_rms_norm", kernel, dim3(static_cast<unsigned>((T + tile - 1) / tile * tile)),
           dim3(static_cast<unsigned>(threads)), 0, from, w.f32(), eps, H, h.f32(), to);
  };
  if (turns == 1) {
    run(norm_rows<1>);
  } else if (turns == 2) {
    run(norm_rows<2>);
  } else {
    run(norm_rows<4>);
  }
}

}  // namespace nibble::ops

#include "ops/norm/add_rms_norm.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kThreads = 256;

/// A block per row, four neighbouring columns per thread and turn.
__global__ void __launch_bounds__(kThreads)
    norm_rows(const __nv_bfloat16* y, const float* w, float eps, int H, float* h, __nv_bfloat16* n) {
  extern __shared__ float row[];  // [H]
  __shared__ float sums[kThreads / 32];
  const int64_t at = static_cast<int64_t>(blockIdx.x) * H;
  wait_for_predecessor();
  let_successor_start();
  float squares = 0;
  for (int i = threadIdx.x * 4; i < H; i += kThreads * 4) {
    float4 v = *reinterpret_cast<const float4*>(h + at + i);
    if (y != nullptr) {
      const auto* pair = reinterpret_cast<const __nv_bfloat162*>(y + at + i);
      const float2 a = __bfloat1622float2(pair[0]), b = __bfloat1622float2(pair[1]);
      v = {v.x + a.x, v.y + a.y, v.z + b.x, v.w + b.y};
      *reinterpret_cast<float4*>(h + at + i) = v;
    }
    *reinterpret_cast<float4*>(row + i) = v;
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  squares = warp_sum(squares);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = squares;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) total += sums[i];
  const float r = 1.0f / sqrtf(total / static_cast<float>(H) + eps);
  for (int i = threadIdx.x * 4; i < H; i += kThreads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(row + i), gain = *reinterpret_cast<const float4*>(w + i);
    auto* pair = reinterpret_cast<__nv_bfloat162*>(n + at + i);
    pair[0] = __floats2bfloat162_rn(v.x * r * (1 + gain.x), v.y * r * (1 + gain.y));
    pair[1] = __floats2bfloat162_rn(v.z * r * (1 + gain.z), v.w * r * (1 + gain.w));
  }
}

}  // namespace

void add_rms_norm_cuda(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n) {
  NIBBLE_CHECK(h.dim(1) % 4 == 0 && n.dtype() == DType::bf16 && (y.empty() || y.dtype() == DType::bf16));
  const auto H = static_cast<int>(h.dim(1));
  launch(cx, "add_rms_norm", norm_rows, dim3(static_cast<unsigned>(h.dim(0))), dim3(kThreads),
         static_cast<size_t>(H) * sizeof(float), static_cast<const __nv_bfloat16*>(y.raw()), w.f32(), eps, H, h.f32(),
         static_cast<__nv_bfloat16*>(n.raw()));
}

}  // namespace nibble::ops

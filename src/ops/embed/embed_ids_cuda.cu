#include "ops/embed/embed_ids.h"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

__global__ void __launch_bounds__(256) rows_of(const int* ids, const __nv_bfloat16* table, int H, float* y) {
  wait_for_predecessor();
  let_successor_start();
  const __nv_bfloat16* from = table + static_cast<int64_t>(ids[blockIdx.x]) * H;
  float* to = y + static_cast<int64_t>(blockIdx.x) * H;
  for (int i = static_cast<int>(threadIdx.x); i < H; i += 256) to[i] = __bfloat162float(from[i]);
}

}  // namespace

void embed_ids_cuda(Context& cx, const Tensor& ids, const Tensor& table, Tensor& y) {
  NIBBLE_CHECK(table.dtype() == DType::bf16);
  launch(cx, "embed_ids", rows_of, dim3(static_cast<unsigned>(ids.elements())), dim3(256), 0, ids.i32(),
         static_cast<const __nv_bfloat16*>(table.raw()), static_cast<int>(table.dim(1)), y.f32());
}

}  // namespace nibble::ops

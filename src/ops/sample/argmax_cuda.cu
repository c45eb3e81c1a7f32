#include "ops/sample/argmax.h"
#include "ops/sample/best.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {
namespace {

constexpr int kSlices = 64;  // of a row, a block each
constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    best_of_slices(const float* logits, const uint8_t* allowed, int vocabulary, Best* found) {
  __shared__ Best warps[kThreads / 32];
  const float* row = logits + static_cast<int64_t>(blockIdx.y) * vocabulary;
  const int size = (vocabulary + kSlices - 1) / kSlices, begin = static_cast<int>(blockIdx.x) * size;
  const int end = min(begin + size, vocabulary);
  wait_for_predecessor();
  let_successor_start();
  Best best{0, -1};
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
    if (allowed == nullptr || allowed[i] != 0) best = better(best, {row[i], i});
  }
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / 32; ++w) best = better(best, warps[w]);
  found[blockIdx.y * kSlices + blockIdx.x] = best;
}

__global__ void best_of_all(const Best* found, int* ids, int* position) {
  const int row = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x);
  wait_for_predecessor();
  let_successor_start();
  const Best* mine = found + row * kSlices;
  const Best best = warp_best(better(mine[lane], mine[lane + 32]));
  if (lane != 0) return;
  ids[row] = best.id;
  if (position != nullptr) ++position[row];
}

}  // namespace

void argmax_cuda(Context& cx, const Tensor& logits, const Tensor& allowed, Tensor& ids, Tensor& position) {
  const Arena::Scope scope(cx.arena);
  const auto T = static_cast<unsigned>(logits.dim(0));
  const Tensor found = cx.arena.f32({T, kSlices, 2});
  auto* best = reinterpret_cast<Best*>(found.raw());
  launch(cx, "argmax", best_of_slices, dim3(kSlices, T), dim3(kThreads), 0, logits.f32(),
         allowed.empty() ? nullptr : allowed.u8(), static_cast<int>(logits.dim(1)), best);
  launch(cx, "argmax", best_of_all, dim3(T), dim3(32), 0, best, ids.i32(), position.empty() ? nullptr : position.i32());
}

}  // namespace nibble::ops

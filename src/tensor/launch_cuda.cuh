// What every kernel file needs: the stream of a context, a launch that may begin before its predecessor ends, and the
// few device instructions that have no name in CUDA C++.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "tensor/context.h"

namespace nibble {

inline cudaStream_t cuda_stream(const Context& cx) {
  return static_cast<cudaStream_t>(cx.stream->native());
}

/// Asked once: a GPU that was lost since does not answer.
inline int device_attribute(Device device, cudaDeviceAttr attribute) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, int> known;
  const std::lock_guard lock(mutex);
  const auto [at, asked] = known.try_emplace({device.index, attribute}, 0);
  if (asked) NIBBLE_CHECK(cudaDeviceGetAttribute(&at->second, attribute, device.index) == cudaSuccess);
  return at->second;
}
inline int multiprocessors(Device device) {
  return device_attribute(device, cudaDevAttrMultiProcessorCount);
}
constexpr int kSharedOfSystem = 1024;  // of each block's shared memory
/// What each of `blocks` blocks on one multiprocessor may take of its shared memory.
inline size_t shared_memory_of_block(Device device, int blocks) {
  return static_cast<size_t>(
      std::min(device_attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin),
               device_attribute(device, cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks - kSharedOfSystem));
}
/// Clusters of blocks, bulk copies and barriers that count bytes: sm_90 and later.
inline bool has_clusters(Device device) {
  return device_attribute(device, cudaDevAttrComputeCapabilityMajor) >= 9;
}
/// Warpgroups multiply on sm_90 alone.
inline bool has_warpgroup_products(Device device) {
  return device_attribute(device, cudaDevAttrComputeCapabilityMajor) == 9;
}

/// Queues a kernel whose blocks work in clusters of `cluster`, which divides the grid. With programmatic dependent
/// launch (sm_90 and later) the blocks start while the kernel before still runs: whatever the kernel reads of its
/// predecessors' results, and whatever it writes, stands behind wait_for_predecessor().
template <class... Parameters, class... Arguments>
void launch_clusters(const Context& cx, const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 cluster,
                     dim3 block, size_t shared, Arguments&&... arguments) {
  if (shared > 0) {  // with what the kernel itself declares it may be more than a kernel gets unasked
    cx.stream->note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                    op);
  }
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {cluster.x, cluster.y, cluster.z};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = cuda_stream(cx);
  config.attrs = attributes;
  config.numAttrs = !has_clusters(cx.device) ? 0 : cluster.x * cluster.y * cluster.z > 1 ? 2 : 1;
  cx.stream->note(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), op);
}

/// The same without clusters.
template <class... Parameters, class... Arguments>
void launch(const Context& cx, const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
            Arguments&&... arguments) {
  launch_clusters(cx, op, kernel, grid, dim3(1), block, shared, std::forward<Arguments>(arguments)...);
}

/// Multiprocessors give `kernel` so many bytes of shared memory, at least what a block takes, and the rest is L1 cache.
/// What is loaded into registers passes through that cache: a kernel with much on its way needs it large. A
/// multiprocessor changes only while it is idle, so where blocks start early it stays as those before them had it.
template <class... Parameters>
void prefer_cache(const Context& cx, const char* op, void (*kernel)(Parameters...), size_t shared) {
  const int most = device_attribute(cx.device, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const auto percent = static_cast<int>((100 * shared + static_cast<size_t>(most) - 1) / static_cast<size_t>(most));
  cx.stream->note(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, std::min(percent, 100)),
                  op);
}

constexpr int kEarlyRows = 2, kEarlyNormRows = 4;

#ifdef __CUDACC__
/// Everything that earlier kernels of the stream wrote is visible behind this. Every kernel calls it, even one that
/// needs nothing, so that "earlier" reaches beyond the direct predecessor.
__device__ inline void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The successor's blocks may be scheduled from here on. As a rule this stands behind wait_for_predecessor(), so that
/// whatever ran before the predecessor has ended when a kernel starts, and what a kernel reads before its wait may come
/// from there. Products of at most kEarlyRows rows and norms of at most kEarlyNormRows let go earlier, so that the next
/// weights are on their way while they still wait; several of them may be there at once. Between two mixers (delta
/// rule, attention), which keep the rule, the vectors that are written again meanwhile (the residual stream, its norm)
/// could stand in an L1 cache with values of before: they are read past it, except by a product of more rows, which
/// gains by that cache and reads what its direct predecessor wrote: the wait makes that visible.
__device__ inline void let_successor_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xFFFFFFFF, x, lane);
  return x;
}

__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(both);
}

/// Asks for 16 bytes in shared memory, past the L1 cache.
__device__ inline void copy_async(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/// All that a thread asked for since the last call is a group.
__device__ inline void copies_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// All but the latest kPending groups are there.
template <int kPending>
__device__ inline void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Four 8x8 matrices of BF16 as operands of products: lane l gives the address in shared memory of row l % 8 of matrix
/// l / 8, and gets two neighbours of row l / 4 of each (turned: of column l / 4).
__device__ inline void load_matrices(uint32_t row, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_matrices_turned(uint32_t row, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
/// An 8x8 matrix of BF16 that lies in registers so, turned.
__device__ inline uint32_t turn_matrix(uint32_t m) {
  uint32_t turned;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(m));
  return turned;
}

/// d += a b, 16x8x16: a row-major, b column-major, BF16 operands, f32 sums.
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

}  // namespace nibble

#include <cuda_runtime.h>

#include "tensor/probe_cuda.h"

namespace nibble {
namespace {

__global__ void nothing() {}

}  // namespace

bool has_code_for_this_device() {
  cudaFuncAttributes attributes{};
  const bool found = cudaFuncGetAttributes(&attributes, nothing) == cudaSuccess;
  cudaGetLastError();
  return found;
}

}  // namespace nibble

// The likeliest of ids as kernels look for it: the largest value, the smallest id among equals.
#pragma once

namespace nibble::ops {

struct Best {
  float value;
  int id;  // -1: nothing yet
};

__device__ inline Best better(Best a, Best b) {
  if (a.id < 0) return b;
  if (b.id < 0) return a;
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.id < b.id ? a : b;
}
/// Of the lanes of a warp; every lane gets it.
__device__ inline Best warp_best(Best x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    x = better(x, {__shfl_xor_sync(0xFFFFFFFF, x.value, lane), __shfl_xor_sync(0xFFFFFFFF, x.id, lane)});
  }
  return x;
}

}  // namespace nibble::ops

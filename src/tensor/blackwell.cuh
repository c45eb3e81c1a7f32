// The block-scaled FP4 product of sm_120a and sm_121a, which has no name in CUDA C++.
#pragma once

#include <cstdint>

namespace nibble::blackwell {

struct Fp4Product {
  /// d += a b, 16x8x64, E2M1 codes under a UE4M3 scale per 16 of k, f32 sums. Which lane holds what: nvfp4_operand.h.
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, uint32_t a_scales,
                                  uint32_t b_scales) {
// Only these compile it; the letter of the architecture matters.
#if defined(__CUDA_ARCH_FEAT_SM120_ALL) || defined(__CUDA_ARCH_FEAT_SM121_ALL) || \
    (defined(__CUDA_ARCH_FAMILY_SPECIFIC__) && __CUDA_ARCH_FAMILY_SPECIFIC__ == 1200)
    constexpr uint16_t kFirst = 0;  // byte and lane whose scales count
    asm volatile(
        "mma.sync.aligned.kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue4m3 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3}, {%10}, {%12,%12}, {%11}, {%12,%12};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(a_scales), "r"(b_scales), "h"(kFirst));
#else
    __trap();  // linear_to_device lets no weight that needs it onto another device
#endif
  }
};

}  // namespace nibble::blackwell

// What the two kernels of the recurrence share. Both add in the same order: a row's bits do not say which of them it
// met.
#pragma once

#include "ops/gated_delta/delta_mixer_cuda.h"
#include "ops/gated_delta/gates.h"
#include "tensor/hopper.cuh"
#include "tensor/launch_cuda.cuh"

namespace nibble::ops {

/// x / (1 + exp(-x)) and 1 / (1 + exp(-x)) within some 2^-21, without the branches of an exact division. Where the
/// exponential overflows, the quotient is 0 as it should be.
__device__ inline float quick_silu(float x) {
  return __fdividef(x, 1.0f + __expf(-x));
}
__device__ inline float gate_of(float z, Gate gate) {
  return gate == Gate::silu ? quick_silu(z) : __fdividef(1.0f, 1.0f + __expf(-z));
}

/// A channel of the convolution, whose past it moves on.
__device__ inline float conv_silu(const float4& tap, float (&past)[3], float x) {
  const float pre = fmaf(tap.w, x, fmaf(tap.z, past[2], fmaf(tap.y, past[1], tap.x * past[0])));
  past[0] = past[1], past[1] = past[2], past[2] = x;
  return quick_silu(pre);
}

/// What a token means to a whole head.
struct Token {
  float decay, beta;
  float key, query;  // lengths of k and q to 1, the latter times the scale
  float overlap;     // <q,k> of these
};

/// A warp's part of that: what comes of k and q.
template <int kKeys>
__device__ inline void measure_keys(const DeltaMixerArgs& m, const float* keys, const float* queries, Token& token) {
  float kk = 0, qq = 0, qk = 0;
#pragma unroll
  for (int i = threadIdx.x % 32; i < kKeys; i += 32) {
    const float k = keys[i], q = queries[i];
    kk = fmaf(k, k, kk), qq = fmaf(q, q, qq), qk = fmaf(q, k, qk);
  }
  kk = warp_sum(kk), qq = warp_sum(qq), qk = warp_sum(qk);
  if (threadIdx.x % 32 == 0) {
    token.key = rsqrtf(kk + m.l2_eps), token.query = m.scale * rsqrtf(qq + m.l2_eps);
    token.overlap = qk * token.key * token.query;
  }
}

/// kRows floats.
template <int kRows>
__device__ inline void load_rows(const float* from, float (&to)[kRows]) {
  if constexpr (kRows % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(from + i);
      to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) to[i] = from[i];
  }
}

/// Sums of k (low lanes) and q (high lanes) times the columns, over the 16 row groups of a warp: lane l is left with
/// the sum of column 2 * bit 3 + bit 2 for k or, with bit 4, for q.
__device__ inline float sum_row_groups(const float (&key)[4], const float (&query)[4]) {
  const int lane = threadIdx.x % 32;
  float four[4], two[2];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float keep = lane & 16 ? query[j] : key[j], give = lane & 16 ? key[j] : query[j];
    four[j] = keep + __shfl_xor_sync(0xFFFFFFFF, give, 16);
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const float keep = lane & 8 ? four[2 + j] : four[j], give = lane & 8 ? four[j] : four[2 + j];
    two[j] = keep + __shfl_xor_sync(0xFFFFFFFF, give, 8);
  }
  const float keep = lane & 4 ? two[1] : two[0], give = lane & 4 ? two[0] : two[1];
  const float one = keep + __shfl_xor_sync(0xFFFFFFFF, give, 4);
  return one + __shfl_xor_sync(0xFFFFFFFF, one, 2);
}

/// The rule of a token for the 4 columns of a lane's group, given those sums over S before the token: S~^T k = decay
/// S^T k, and y = S~^T q + <q,k> d. Leaves y in the place of v, and in `write` what times k a row of S gets.
__device__ inline void meet_columns(const float (&key_sum)[4], const float (&query_sum)[4], const Token& c, float* v,
                                    float (&write)[4]) {
  const int lane = threadIdx.x % 32;
  const float sum = sum_row_groups(key_sum, query_sum) * c.decay;
  const float query = c.query * __shfl_xor_sync(0xFFFFFFFF, sum, 16);
  float d = 0;
  if ((lane & 18) == 0) {
    float* const mine = v + 2 * (lane >> 3 & 1) + (lane >> 2 & 1);
    d = c.beta * fmaf(-c.key, sum, *mine);
    *mine = fmaf(c.overlap, d, query);
  }
  d *= c.key;
#pragma unroll
  for (int j = 0; j < 4; ++j) write[j] = __shfl_sync(0xFFFFFFFF, d, (lane & 1) + 4 * (j % 2) + 8 * (j / 2));
}

/// Two outputs of a head, normed and gated; sums: the squares of its columns, added by eights.
__device__ inline __nv_bfloat162 gated_pair(const DeltaMixerArgs& m, const float* sums, float2 x, float2 norm,
                                            uint32_t z) {
  float sum = 0;
#pragma unroll 8
  for (int j = 0; j < m.value_size / 8; j += 2) sum += sums[j] + sums[j + 1];
  const float r = rsqrtf(__fdividef(sum, static_cast<float>(m.value_size)) + m.norm_eps);
  return __floats2bfloat162_rn(x.x * r * norm.x * gate_of(f32_from_bits(z << 16), m.gate),
                               x.y * r * norm.y * gate_of(f32_from_bits(z & 0xFFFF0000), m.gate));
}

}  // namespace nibble::ops

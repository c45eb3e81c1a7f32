// attention: causal softmax attention with grouped key/value heads, over a position-addressed cache.
#pragma once

#include "ops/activation/sigmoid_gate.h"
#include "tensor/context.h"

namespace nibble::ops {

/// attention: query row t stands at position p = past + t and sees the cache rows 0..p; kv head of query head h is
/// h / (nh/nkv).
///   s_j = scale * <q[t,h,:], keys[j,kv,:]>,  j = 0..p;   o[t,h,:] = sum_j softmax(s)_j * values[j,kv,:]
/// shapes   q, o [T,nh,D] f32   keys, values [capacity,nkv,D], both f32 or both bf16   nh a multiple of nkv   T >= 0
///          rows 0..past+T-1 of the cache are valid: the call's own rows are appended before (append_kv)
/// numeric  f32; keys are visited in blocks of 64 counted from position 0, so the bits of a row depend on its position
///          and the cache alone, never on T or past. BF16 caches are read as stored, q is not rounded.
/// effects  writes o, which aliases nothing; scratch from cx.arena
void attention(Context& cx, const Tensor& q, const Tensor& keys, const Tensor& values, int64_t past, float scale,
               Tensor& o);

/// append_kv: cache[position + t] = k[t], rounded to the cache's dtype (BF16: nearest even).
/// shapes   k [T,nkv,D] f32   cache [capacity,nkv,D] f32 or bf16   position + T <= capacity
void append_kv(Context& cx, const Tensor& k, int64_t position, Tensor& cache);

}  // namespace nibble::ops

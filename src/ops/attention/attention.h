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

/// attention_vjp: one whole sequence from position 0, its keys and values as they came from the projections. With P the
/// probabilities of the forward, P_tj = softmax(s)_j:
///   dP_tj = <dy[t,h,:], v[j,kv,:]>;   ds_tj = P_tj * (dP_tj - sum_i P_ti dP_ti)
///   dq[t,h,:] = scale * sum_j ds_tj k[j,kv,:];   dk[j,kv,:] = scale * sum_{h,t} ds_tj q[t,h,:]
///   dv[j,kv,:] = sum_{h,t} P_tj dy[t,h,:]        over the nh/nkv query heads h of the kv head
/// shapes   dy, q, dq [T,nh,D] f32   k, v, dk, dv [T,nkv,D] f32
/// numeric  f32; P is computed anew. What is summed by whom depends on the shape alone: the bits do not depend on the
///          number of threads
/// effects  overwrites dq, dk, dv, which alias nothing; scratch from cx.arena: 11 times k at most, and 64 * T floats or
/// so
///          per thread
void attention_vjp(Context& cx, const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, float scale,
                   Tensor& dq, Tensor& dk, Tensor& dv);

/// append_kv: cache[position + t] = k[t], rounded to the cache's dtype (BF16: nearest even).
/// shapes   k [T,nkv,D] f32   cache [capacity,nkv,D] f32 or bf16   position + T <= capacity
void append_kv(Context& cx, const Tensor& k, int64_t position, Tensor& cache);

}  // namespace nibble::ops

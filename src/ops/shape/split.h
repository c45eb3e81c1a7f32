// Copying splits: what a fused projection computed side by side becomes separate contiguous tensors. A join is the
// inverse of a split and carries its gradients back.
#pragma once

#include <span>

#include "tensor/context.h"

namespace nibble::ops {

/// split_heads: q[t,h,:] = qg[t,h,0:D], gate[t,h,:] = qg[t,h,D:2D]. The halves interleave head by head.
/// shapes   qg [T,nh,2D] f32   q, gate [T,nh,D] f32   T >= 0
void split_heads(Context& cx, const Tensor& qg, Tensor& q, Tensor& gate);
/// join_heads: qg[t,h,0:D] = q[t,h,:], qg[t,h,D:2D] = gate[t,h,:]; shapes as above. split_heads_vjp is
/// join_heads(dq, dgate, dqg).
void join_heads(Context& cx, const Tensor& q, const Tensor& gate, Tensor& qg);

/// split_columns: parts[i] takes the next c_i columns of x.
/// shapes   x [T,C] f32   parts[i] f32 with T as first dimension and c_i elements per row, sum c_i = C   T >= 0
void split_columns(Context& cx, const Tensor& x, std::span<Tensor> parts);
/// join_columns: the next c_i columns of x become parts[i]; shapes as above. split_columns_vjp is
/// join_columns(dparts, dx).
void join_columns(Context& cx, std::span<const Tensor> parts, Tensor& x);

}  // namespace nibble::ops

// add_rms_norm: the residual connection and the norm that follows it.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// add_rms_norm:  h += y;   n = rms_norm(h, w) with the gain 1 + w      for each row of H
/// shapes   h [T,H] f32   y, n [T,H]: f32 on a CPU, bf16 on a GPU   w [H] f32   y may be empty: nothing is added;
///          n may be of inputs_of() (ops/linear/linears.h)
/// numeric  sums in f32 in one fixed order per row; n is rounded once
/// effects  updates h, writes n
void add_rms_norm(Context& cx, const Tensor& y, const Tensor& w, float eps, Tensor& h, Tensor& n);

}  // namespace nibble::ops

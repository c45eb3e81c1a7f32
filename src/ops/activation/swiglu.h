// swiglu: the gated activation of the MLP.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// swiglu:  y = gate * sigmoid(gate) * up, elementwise.
/// shapes   equal, f32
/// effects  writes y, which may be gate or up
void swiglu(Context& cx, const Tensor& gate, const Tensor& up, Tensor& y);

/// swiglu_vjp, with s = sigmoid(gate):  dgate = dy * up * s * (1 + gate * (1 - s));   dup = dy * gate * s
/// shapes   equal, f32
/// effects  overwrites dgate and dup; each may be dy, gate or up
void swiglu_vjp(Context& cx, const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor& dgate, Tensor& dup);

}  // namespace nibble::ops

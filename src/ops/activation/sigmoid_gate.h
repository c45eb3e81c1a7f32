// sigmoid_gate: the output gate of an attention layer.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// sigmoid_gate:  y = x * sigmoid(gate), elementwise; sigmoid(z) = 1/(1+exp(-z))
/// shapes   equal, f32
/// effects  writes y, which may be x or gate
void sigmoid_gate(Context& cx, const Tensor& x, const Tensor& gate, Tensor& y);

/// sigmoid_gate_vjp, with s = sigmoid(gate):  dx = dy * s;   dgate = dy * x * s * (1 - s)
/// shapes   equal, f32
/// effects  overwrites dx and dgate; each may be dy, x or gate
void sigmoid_gate_vjp(Context& cx, const Tensor& dy, const Tensor& x, const Tensor& gate, Tensor& dx, Tensor& dgate);

}  // namespace nibble::ops

// sigmoid_gate: the output gate of an attention layer.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// sigmoid_gate:  y = x * sigmoid(gate), elementwise; sigmoid(z) = 1/(1+exp(-z))
/// shapes   equal, f32
/// effects  writes y, which may be x or gate
void sigmoid_gate(Context& cx, const Tensor& x, const Tensor& gate, Tensor& y);

}  // namespace nibble::ops

// swiglu: the gated activation of the MLP.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// swiglu:  y = gate * sigmoid(gate) * up, elementwise.
/// shapes   equal, f32
/// effects  writes y, which may be gate or up
void swiglu(Context& cx, const Tensor& gate, const Tensor& up, Tensor& y);

}  // namespace nibble::ops

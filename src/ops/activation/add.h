// add: the residual connection.
#pragma once

#include "tensor/context.h"

namespace nibble::ops {

/// add:  b += a, elementwise; equal shapes, f32.
void add(Context& cx, const Tensor& a, Tensor& b);

}  // namespace nibble::ops

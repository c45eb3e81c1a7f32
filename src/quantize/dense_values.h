// The values of an unquantized matrix as f32.
#pragma once

#include "tensor/context.h"

namespace nibble::quantize {

/// out [N,K] f32 = w [N,K] f32 or bf16, exactly; w needs no alignment.
void dense_values(Context& cx, const Tensor& w, const Tensor& out);

}  // namespace nibble::quantize

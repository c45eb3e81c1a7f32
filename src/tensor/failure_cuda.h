#pragma once

#include <string_view>

#include "base/result.h"
#include "tensor/tensor.h"

namespace nibble {

/// What an error of the CUDA run-time library means for whoever asked for `what`, with a hint what to do about it.
Status cuda_failure(int error, Device device, std::string_view what);

}  // namespace nibble

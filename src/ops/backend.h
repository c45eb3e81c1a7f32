// The device check of ops that have only a CPU form.
#pragma once

#include "tensor/dispatch.h"

namespace nibble::ops {

inline void require_cpu(const char* op, const Tensor& y) {
  if (y.device().is_cuda()) unsupported_device(op);
}

}  // namespace nibble::ops

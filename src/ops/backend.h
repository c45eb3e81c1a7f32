// Checks that ops share.
#pragma once

#include "tensor/dispatch.h"

namespace nibble::ops {

/// Of ops that have only a CPU form.
inline void require_cpu(const char* op, const Tensor& y) {
  if (y.device().is_cuda()) unsupported_device(op);
}

/// The length of the rows that an op over [...,N] works on.
inline int64_t last_dim(const Tensor& x) {
  NIBBLE_CHECK(x.rank() > 0 && x.dim(x.rank() - 1) > 0);
  return x.dim(x.rank() - 1);
}

}  // namespace nibble::ops

// The one place where a backend is chosen, and the one `#if` about backends in src/. Without CUDA the second arm is
// unreachable: a device is refused when it is opened, long before an op sees it.
#pragma once

#include "tensor/context.h"

namespace nibble {
/// Aborts with "NAME: unsupported on cuda in this build"; only a bug of ours gets here.
[[noreturn]] void unsupported_device(const char* op);
}  // namespace nibble

#if NIBBLE_HAS_CUDA
#define NIBBLE_DISPATCH(device, op, ...) ((device).is_cuda() ? op##_cuda(__VA_ARGS__) : op##_cpu(__VA_ARGS__))
#else
#define NIBBLE_DISPATCH(device, op, ...) \
  ((device).is_cuda() ? ::nibble::unsupported_device(#op) : op##_cpu(__VA_ARGS__))
#endif

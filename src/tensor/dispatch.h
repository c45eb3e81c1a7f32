// The one place where a backend is chosen. A build without CUDA links no_cuda.cc in the place of the *_cuda files; it
// is unreachable, because a device is refused when it is opened, long before an op sees it.
#pragma once

#include "tensor/context.h"

namespace nibble {
/// Aborts with "NAME: unsupported on cuda"; only a bug of ours gets here.
[[noreturn]] void unsupported_device(const char* op);
}  // namespace nibble

#define NIBBLE_DISPATCH(device, op, ...) ((device).is_cuda() ? op##_cuda(__VA_ARGS__) : op##_cpu(__VA_ARGS__))

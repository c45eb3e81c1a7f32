#include "tensor/dispatch.h"

#include <cstdio>
#include <cstdlib>

namespace nibble {

void unsupported_device(const char* op) {
  std::fprintf(stderr, "nibble: %s: unsupported on cuda\n", op);
  std::abort();
}

}  // namespace nibble

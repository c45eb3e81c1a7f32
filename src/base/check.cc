#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace nibble {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "nibble: check failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace nibble

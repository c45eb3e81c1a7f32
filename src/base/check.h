// NIBBLE_CHECK: an assertion about our own code, on in every build. User input must never be able to reach it: what a
// user can get wrong is a Status (result.h).
#pragma once

namespace nibble {

/// Writes "check failed: EXPR at FILE:LINE" to stderr and aborts.
[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace nibble

#define NIBBLE_CHECK(expr) \
  (static_cast<bool>(expr) ? static_cast<void>(0) : ::nibble::check_failed(#expr, __FILE__, __LINE__))

// Monotonic time. Every duration that nibble reports comes from here.
#pragma once

#include <chrono>

namespace nibble {

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return now_s() - start_; }
  double ms() const { return seconds() * 1e3; }

 private:
  double start_ = now_s();
};

}  // namespace nibble

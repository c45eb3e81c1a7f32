// Budget: what one rendering may spend. A template comes with a stranger's checkpoint and its input with a stranger's
// request, so every loop, copy and recursion of the engine pays here before it happens.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble::text {

struct RenderLimits {
  uint64_t steps = 1'000'000;             // evaluated nodes, visited items and, 64 bytes each, copied text
  size_t output_bytes = size_t{4} << 20;  // the rendered text, and any single string on the way
  double cpu_ms = 100;                    // processor time of the rendering thread
  int macro_depth = 64;                   // macro calls inside macro calls
};

namespace jinja {

/// Throws jinja::Error when a limit is passed. Used by one thread.
class Budget {
 public:
  explicit Budget(const RenderLimits& limits);

  /// Pays for `n` units of work.
  void step(uint64_t n = 1);
  /// Pays for making a string of `n` bytes and refuses one that is larger than the output may be.
  void text(size_t n);

  /// One level of evaluation: expression in expression, block in block. Bounds the C++ stack.
  class Level {
   public:
    explicit Level(Budget& budget);
    ~Level() { --budget_.levels_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Budget& budget_;
  };

  const RenderLimits& limits() const { return limits_; }

 private:
  void check_time() const;

  RenderLimits limits_;
  uint64_t spent_ = 0, next_look_at_clock_ = 0;
  double start_ms_;
  int levels_ = 0;
};

}  // namespace jinja
}  // namespace nibble::text

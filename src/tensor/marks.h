// Marks: how long each op of a pass takes.
#pragma once

#include <vector>

#include "tensor/context.h"

namespace nibble {

/// Between the mark before and this one.
struct Lap {
  uint8_t op = 0;  // as whoever marked numbers its ops
  double us = 0;
};

/// Whoever is to be measured calls begin() and, behind each op, mark(). On a GPU both queue a kernel of one thread that
/// writes the GPU's clock, so they can be recorded in a Graph with the ops and are written anew at each replay; no op
/// overlaps another over a mark. On a CPU the clock is read at once. Not thread-safe.
class Marks {
 public:
  /// Room for that many; `cx` outlives it.
  static Result<Marks> create(const Context& cx, size_t most);
  static size_t bytes_needed(size_t most) { return (most + 1) * sizeof(uint64_t); }

  /// Forgets what was marked before.
  void begin();
  void mark(uint8_t op);

  /// One for each mark since begin(); waits for the device. In recorded work, of the last replay.
  Result<std::vector<Lap>> laps();

 private:
  explicit Marks(const Context& cx) : cx_(&cx) {}
  void write();

  const Context* cx_;
  size_t most_ = 0;
  Buffer times_;              // [1 + marks] u64, ns
  std::vector<uint8_t> ops_;  // of the marks
};

/// Queues a kernel that writes the GPU's clock, in ns.
void write_clock_cuda(const Context& cx, uint64_t* to);

}  // namespace nibble

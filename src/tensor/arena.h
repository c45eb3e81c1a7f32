// Arena: scratch memory for one forward or train step. After the first step of a given shape it allocates nothing.
// Scratch of a GPU is reserved beforehand and never grows.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace nibble {

/// A stack of blocks. Tensors taken since a Scope began are given back when it ends. Not thread-safe: take scratch
/// before parallel_for and split it inside.
class Arena {
 public:
  explicit Arena(Device device = {}) : device_(device) {}
  /// On a GPU only within what was reserved.
  Tensor take(DType dtype, const Shape& shape);
  Tensor f32(const Shape& shape) { return take(DType::f32, shape); }

  /// Makes room for `bytes` in one block, so that tensors of changing sizes leave no holes. While none is taken.
  Status reserve(size_t bytes);

  /// The most that was in use at a time, with the holes at the ends of blocks.
  size_t peak_bytes() const { return peak_; }
  /// Bytes reserved so far; constant from the second step on.
  size_t reserved_bytes() const;

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t block_, used_;
  };

 private:
  Device device_;
  std::vector<Buffer> blocks_;
  size_t block_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace nibble

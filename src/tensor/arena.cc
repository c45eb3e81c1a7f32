#include "tensor/arena.h"

#include <algorithm>

namespace nibble {

Tensor Arena::take(DType dtype, const Shape& shape) {
  constexpr size_t kBlock = size_t{4} << 20;
  const size_t bytes = (static_cast<size_t>(shape.elements()) * size_of(dtype) + 63) / 64 * 64;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) blocks_.emplace_back(std::max(bytes, kBlock));
  Tensor tensor(blocks_[block_].data() + used_, dtype, shape);
  used_ += bytes;
  size_t before = 0;
  for (size_t i = 0; i < block_; ++i) before += blocks_[i].bytes();
  peak_ = std::max(peak_, before + used_);
  return tensor;
}

void Arena::reserve(size_t bytes) {
  NIBBLE_CHECK(block_ == 0 && used_ == 0);
  blocks_.clear();
  if (bytes > 0) blocks_.emplace_back(bytes);
  peak_ = 0;
}

size_t Arena::reserved_bytes() const {
  size_t sum = 0;
  for (const Buffer& block : blocks_) sum += block.bytes();
  return sum;
}

}  // namespace nibble

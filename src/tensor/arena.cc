#include "tensor/arena.h"

#include <algorithm>

namespace nibble {

Tensor Arena::take(DType dtype, const Shape& shape) {
  constexpr size_t kBlock = size_t{4} << 20;
  const size_t align = device_.is_cuda() ? 256 : 64;
  const size_t bytes = (static_cast<size_t>(shape.elements()) * size_of(dtype) + align - 1) / align * align;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    NIBBLE_CHECK(!device_.is_cuda());
    blocks_.emplace_back(std::max(bytes, kBlock));
  }
  Tensor tensor(blocks_[block_].data() + used_, dtype, shape, device_);
  used_ += bytes;
  size_t before = 0;
  for (size_t i = 0; i < block_; ++i) before += blocks_[i].bytes();
  peak_ = std::max(peak_, before + used_);
  return tensor;
}

Status Arena::reserve(size_t bytes) {
  NIBBLE_CHECK(block_ == 0 && used_ == 0);
  blocks_.clear();
  peak_ = 0;
  if (bytes == 0) return {};
  NIBBLE_TRY(block, Buffer::on(device_, bytes));
  blocks_.push_back(std::move(block));
  return {};
}

size_t Arena::reserved_bytes() const {
  size_t sum = 0;
  for (const Buffer& block : blocks_) sum += block.bytes();
  return sum;
}

}  // namespace nibble

#include "tensor/tensor.h"

#include <cstdlib>
#include <cstring>

#include "tensor/device.h"

namespace nibble {

std::string Shape::text() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ',';
    text += std::to_string(dims_[static_cast<size_t>(i)]);
  }
  return text + "]";
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  NIBBLE_CHECK(rank() > 0 && 0 <= begin && begin <= end && end <= dim(0));
  const size_t row_bytes = dim(0) == 0 ? 0 : bytes() / static_cast<size_t>(dim(0));
  Shape shape{end - begin};
  for (int i = 1; i < rank(); ++i) shape.push_back(dim(i));
  return {static_cast<std::byte*>(data_) + static_cast<size_t>(begin) * row_bytes, dtype_, shape, device_};
}

Tensor Tensor::reshape(Shape shape) const {
  NIBBLE_CHECK(shape.elements() == elements());
  return {data_, dtype_, shape, device_};
}

void Buffer::Free::operator()(std::byte* p) const {
  device.is_cuda() ? cuda_free(p) : std::free(p);
}

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64;
  if (rounded == 0) return;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
  NIBBLE_CHECK(p != nullptr);
  std::memset(p, 0, rounded);
  data_.reset(p);
}

Result<Buffer> Buffer::on(Device device, size_t bytes) {
  if (!device.is_cuda() || bytes == 0) return Buffer(bytes);
  NIBBLE_TRY(p, cuda_allocate(device, bytes));
  Buffer buffer;
  buffer.bytes_ = bytes;
  buffer.data_ = {p, Free{device}};
  return buffer;
}

}  // namespace nibble

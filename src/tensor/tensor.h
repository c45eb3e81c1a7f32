// Tensor: a view of contiguous, row-major elements. It owns nothing; a Buffer, an Arena or a mapped file does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "tensor/dtype.h"

namespace nibble {

/// Up to four dimensions, outermost first. A shape of rank 0 is a scalar with one element.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    NIBBLE_CHECK(dims.size() <= kMaxRank);
    for (int64_t d : dims) dims_[static_cast<size_t>(rank_++)] = d;
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const {
    NIBBLE_CHECK(i >= 0 && i < rank_);
    return dims_[static_cast<size_t>(i)];
  }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<size_t>(i)];
    return n;
  }
  void push_back(int64_t d) {
    NIBBLE_CHECK(rank_ < kMaxRank);
    dims_[static_cast<size_t>(rank_++)] = d;
  }
  bool operator==(const Shape& other) const { return rank_ == other.rank_ && dims_ == other.dims_; }

  /// "[4,16]"
  std::string text() const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

enum class DeviceKind : uint8_t { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool is_cuda() const { return kind == DeviceKind::cuda; }
  bool operator==(const Device&) const = default;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device device = {})
      : data_(data), dtype_(dtype), device_(device), shape_(shape) {}
  /// A view of foreign, read-only bytes (a mapped checkpoint). Kernels never write their inputs.
  static Tensor constant(const void* data, DType dtype, Shape shape) { return {const_cast<void*>(data), dtype, shape}; }

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t elements() const { return shape_.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * size_of(dtype_); }

  void* raw() const { return data_; }
  float* f32() const {
    NIBBLE_CHECK(dtype_ == DType::f32);
    return static_cast<float*>(data_);
  }
  uint16_t* bf16() const {
    NIBBLE_CHECK(dtype_ == DType::bf16);
    return static_cast<uint16_t*>(data_);
  }
  uint8_t* u8() const {
    NIBBLE_CHECK(size_of(dtype_) == 1);
    return static_cast<uint8_t*>(data_);
  }
  uint16_t* u16() const {
    NIBBLE_CHECK(dtype_ == DType::u16);
    return static_cast<uint16_t*>(data_);
  }
  int32_t* i32() const {
    NIBBLE_CHECK(dtype_ == DType::i32);
    return static_cast<int32_t*>(data_);
  }
  std::span<float> f32_span() const { return {f32(), static_cast<size_t>(elements())}; }

  /// Rows [begin, end) of the outermost dimension.
  Tensor rows(int64_t begin, int64_t end) const;
  /// The same elements under another shape.
  Tensor reshape(Shape shape) const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  Device device_;
  Shape shape_;
};

/// Owns 64-byte aligned memory of this machine or of a GPU. Contents start as zeros.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  /// Memory of `device`. `out_of_memory` names what was asked for and what is free.
  static Result<Buffer> on(Device device, size_t bytes);

  size_t bytes() const { return bytes_; }
  Device device() const { return data_.get_deleter().device; }
  std::byte* data() const { return data_.get(); }

  /// A buffer together with the one tensor that fills it.
  static Buffer for_tensor(DType dtype, const Shape& shape) {
    return Buffer(static_cast<size_t>(shape.elements()) * size_of(dtype));
  }
  Tensor tensor(DType dtype, const Shape& shape) const {
    NIBBLE_CHECK(static_cast<size_t>(shape.elements()) * size_of(dtype) <= bytes_);
    return {data_.get(), dtype, shape, device()};
  }

 private:
  struct Free {
    Device device;
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  size_t bytes_ = 0;
};

/// An f32 tensor with its own memory: weights converted at load, tests, small states.
struct OwnedTensor {
  Buffer buffer;
  Tensor view;
  OwnedTensor() = default;
  OwnedTensor(DType dtype, const Shape& shape)
      : buffer(Buffer::for_tensor(dtype, shape)), view(buffer.tensor(dtype, shape)) {}
};

}  // namespace nibble

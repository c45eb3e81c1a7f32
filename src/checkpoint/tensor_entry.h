// What TensorSource reads a tensor's description and its single elements with. Internal to checkpoint/.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "io/safetensors.h"
#include "tensor/numeric.h"

namespace nibble::checkpoint {

inline constexpr std::string_view kFloats = "bf16, f16 or f32";

inline std::string file_of(const SafetensorsFolder::Entry& entry) {
  return entry.file->mapping().path().filename().string();
}

/// "[12288,4096] bf16", with our spelling of types we know.
inline std::string describe(const TensorInfo& info) {
  return fmt::format("[{}] {}", fmt::join(info.shape, ","), info.type ? name(*info.type) : info.dtype);
}

inline bool has_shape(const TensorInfo& info, const Shape& shape) {
  if (info.shape.size() != static_cast<size_t>(shape.rank())) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    if (info.shape[static_cast<size_t>(i)] != shape[i]) return false;
  }
  return true;
}

inline bool is_float(std::optional<DType> type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16;
}

// Files promise no alignment, so elements are read by memcpy.
template <class T>
T element(const void* base, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(base) + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

inline float float_at(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::bf16:
      return bf16_to_f32(element<uint16_t>(t.raw(), i));
    case DType::f16:
      return f16_to_f32(element<uint16_t>(t.raw(), i));
    default:
      return element<float>(t.raw(), i);
  }
}

/// True when an exponent of all ones, NaN or infinity, is among n elements.
template <class T>
bool any_special(const void* base, int64_t n, T exponent) {
  unsigned found = 0;
  for (int64_t i = 0; i < n; ++i) found |= (element<T>(base, i) & exponent) == exponent;
  return found != 0;
}

inline bool any_special(const Tensor& rows) {
  switch (rows.dtype()) {
    case DType::bf16:
      return any_special<uint16_t>(rows.raw(), rows.elements(), 0x7F80);
    case DType::f16:
      return any_special<uint16_t>(rows.raw(), rows.elements(), 0x7C00);
    default:
      return any_special<uint32_t>(rows.raw(), rows.elements(), 0x7F800000);
  }
}

/// Lowers `first` to `value` if that is smaller.
inline void take_minimum(std::atomic<int64_t>& first, int64_t value) {
  int64_t seen = first.load();
  while (value < seen && !first.compare_exchange_weak(seen, value)) {
  }
}

}  // namespace nibble::checkpoint

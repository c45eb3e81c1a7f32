// The element types that a checkpoint or a kernel can hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

/// u8 also carries packed NVFP4 codes: two per byte, low nibble first. u16 carries the low halves of split masters.
enum class DType : uint8_t { f32, bf16, f16, f8e4m3, u8, u16, i32 };

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
    case DType::u16:
      return 2;
    case DType::f8e4m3:
    case DType::u8:
      return 1;
  }
  return 0;
}

/// "f32", "bf16", … as our messages spell them.
constexpr const char* name(DType type) {
  switch (type) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f8e4m3:
      return "f8e4m3";
    case DType::u8:
      return "u8";
    case DType::u16:
      return "u16";
    case DType::i32:
      return "i32";
  }
  return "?";
}

}  // namespace nibble

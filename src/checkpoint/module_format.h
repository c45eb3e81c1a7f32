// In what form a linear is stored, and what happens to its inputs: the words that plans, recipes and layouts share.
#pragma once

#include <cstdint>
#include <string_view>

namespace nibble::checkpoint {

enum class Format : uint8_t {
  unchanged,    // as in the source
  nvfp4,        // four bits, an E4M3 scale per 16 weights, one F32 scale per tensor
  fp8,          // E4M3 with one F32 scale per tensor
  fp8_channel,  // E4M3 with one F32 scale per output
};

enum class Inputs : uint8_t {
  a16,  // as they come
  a8,   // to E4M3 under a static scale; with fp8 weights
  a4,   // to NVFP4 under a static tensor scale; with nvfp4 weights
};

/// How the tensors of a quantized linear are called and what config.json says of them.
enum class Layout : uint8_t { modelopt, compressed_tensors };

constexpr std::string_view format_name(Format format) {
  switch (format) {
    case Format::unchanged:
      return "unchanged";
    case Format::nvfp4:
      return "nvfp4";
    case Format::fp8:
      return "fp8";
    case Format::fp8_channel:
      return "fp8_channel";
  }
  return {};
}

constexpr std::string_view inputs_name(Inputs inputs) {
  return inputs == Inputs::a16 ? "a16" : inputs == Inputs::a8 ? "a8" : "a4";
}

constexpr bool is_fp8(Format format) {
  return format == Format::fp8 || format == Format::fp8_channel;
}

}  // namespace nibble::checkpoint

// Half of every E4M3 number, by its byte: the block scale that belongs to codes of twice their value.
#pragma once

#include <array>

#include "tensor/numeric.h"

namespace nibble::ops {

inline const float* half_e4m3() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f * e4m3_to_f32(static_cast<uint8_t>(i));
    return values;
  }();
  return table.data();
}

}  // namespace nibble::ops

#pragma once

#include "ops/linear/fragment_source.cuh"
#include "ops/linear/linear.h"

namespace nibble::ops {

/// What kernels read of a weight that linear_to_device made.
inline DeviceWeight device_weight(const Linear& w) {
  const bool packed = w.format == WeightFormat::nvfp4;
  return {.data = static_cast<const uint8_t*>(w.weight.raw()),
          .scales = packed ? w.block_scale.u8() : nullptr,
          .channel_scale = w.channel_scale.empty() ? nullptr : w.channel_scale.f32(),
          .factor = packed ? w.tensor_scale * kFragmentFactor : w.tensor_scale,
          .rows = static_cast<int>(w.out),
          .columns = static_cast<int>(w.in)};
}

}  // namespace nibble::ops

// Strategies: how block scales are chosen without data. Everything else (tensor scales, codes, files) is common to all.
#pragma once

#include <string_view>

#include "base/result.h"
#include "quantize/recipe.h"
#include "tensor/context.h"
#include "tensor/numeric.h"

namespace nibble::quantize {

struct Strategy {
  std::string_view name;
  float range;  // what the tensor's amax maps to: its tensor scale is amax / range
  /// Writes one scale byte per block of w; see ops/quant/nvfp4.h.
  void (*choose_scales)(Context& cx, const Tensor& w, Nvfp4TensorScale scale, const Tensor& scales);
};

/// `invalid_argument` for a name that is no strategy; the message lists those that are.
Result<Strategy> find_strategy(std::string_view name);

/// The strategy of these scales; of those that need data the one that comes closest without, mse.
Strategy data_free_strategy(Scales scales);

}  // namespace nibble::quantize

// Calibration: what the inputs of every linear look like over real conversations. It runs the model's own forward in
// exact numerics with no quantizer active, so the statistics belong to the network that will be quantized.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/weights.h"
#include "tensor/context.h"

namespace nibble::quantize {

struct Calibration {
  std::map<std::string, float> input_amax;  // module name -> max |x| over all tokens, lm_head included
  int64_t tokens = 0;
};

/// Each chat is one sequence from an empty state. Progress counts tokens. `cancelled` through cx.cancel.
Result<Calibration> calibrate(Context& cx, model::Weights& weights, const std::vector<std::vector<int32_t>>& chats,
                              const Progress& progress);

}  // namespace nibble::quantize

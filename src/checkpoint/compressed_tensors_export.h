// The compressed-tensors layout of a quantized checkpoint: what config.json says. The tensors are those of
// linear_layout.h.
//
// Source: the configs that llm-compressor 0.14 and compressed-tensors 0.20 write, and what their loader did with 84
// other forms: every key of a scheme is written, since a missing one may go unnoticed and give wrong numbers, and every
// dense linear is in `ignore`.
#pragma once

#include "checkpoint/quantized_modules.h"
#include "io/json.h"

namespace nibble::checkpoint {

/// The value of "quantization_config" in config.json: format nvfp4-pack-quantized, float-quantized, or mixed-precision
/// with a group of explicit names for each form. There is at least one quantized module and none has a low-rank branch.
/// An FP8 cache is not asked for: loaders of this layout expect stored scales with it.
Json compressed_tensors_config(const QuantizedModules& modules);

}  // namespace nibble::checkpoint

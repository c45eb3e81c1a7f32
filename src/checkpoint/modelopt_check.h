// Does a ModelOpt folder agree with itself? Run on every export before it gets its name, and by the doctor.
#pragma once

#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/safetensors.h"

namespace nibble::checkpoint {

/// Everything wrong with the folder, most basic first; empty when it is sound. A folder that cannot be read at all
/// yields that one Status. Checked, in both directions:
///   - hf_quant_config.json and config.json say the same;
///   - every quantized linear has its tensors, in the right dtypes and shapes, an input_scale exactly when the config
///     says so, low-rank factors exactly with NVFP4_SVD, and matches no exclude; with MIXED_PRECISION quantized_layers
///     names it and nothing else; every unquantized linear or convolution matches an exclude;
///   - all scales are finite and > 0 (tensor scales, input scales, and every block scale byte), no FP8 code is NaN;
///   - linears that servers fuse have one format, one input scale, and, if NVFP4, one tensor scale;
///   - an untied model has its lm_head, a tied one no quantized one;
///   - with `source`: every tensor of it is there under its name, with its shape and dtype unless it was quantized.
std::vector<Status> modelopt_problems(const Path& folder, const SafetensorsFolder* source = nullptr);

}  // namespace nibble::checkpoint

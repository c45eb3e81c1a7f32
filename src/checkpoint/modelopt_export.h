// The ModelOpt layout of a quantized checkpoint: what the two config files say. Both come from one struct, so they
// cannot disagree. They are read back by quantization.h; the tensors are those of linear_layout.h.
//
// Source: nvidia-modelopt 0.47's exporter, whose files for this family are kept as goldens. Producer and quant_method
// stay "modelopt", because loaders key on them; our own name goes into the metadata of the safetensors files. Two
// differences: excludes are written beside quantized_layers, too, where ModelOpt leaves them out; and FP8 weights whose
// inputs stay as they are, which ModelOpt does not have, are "FP8" without an input_scale.
#pragma once

#include <string>
#include <string_view>

#include "checkpoint/linear_layout.h"
#include "checkpoint/quantized_modules.h"
#include "io/json.h"

namespace nibble::checkpoint {

constexpr std::string_view kHfQuantConfigFile = "hf_quant_config.json";
constexpr std::string_view kQuantizationConfigKey = "quantization_config";  // in config.json

/// ModelOpt's word for one module's form: "NVFP4", "W4A16_NVFP4", "NVFP4_SVD", "FP8", "FP8_PER_CHANNEL_PER_TOKEN".
std::string_view quant_algo(const QuantizedModule& module);

/// The contents of hf_quant_config.json. There is at least one quantized module.
Json hf_quant_config(const QuantizedModules& modules);

/// The value of "quantization_config" in config.json.
Json quantization_config(const QuantizedModules& modules);

/// Text of a config file as we write it: two spaces of indentation and a final newline.
std::string config_text(const Json& json);

}  // namespace nibble::checkpoint

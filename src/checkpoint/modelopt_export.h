// The ModelOpt layout of an NVFP4 checkpoint: which tensors a quantized linear becomes, and what the two config files
// say. Both files come from one struct, so they cannot disagree. They are read back by quantization.h.
//
//   MODULE.weight          U8 [N,K/2]        two codes per byte, low nibble first
//   MODULE.weight_scale    F8_E4M3 [N,K/16]  block scales
//   MODULE.weight_scale_2  F32 []            tensor scale, multiplies
//   MODULE.input_scale     F32 []            tensor scale of the activations; only with 4-bit activations
//
// Source: nvidia-modelopt 0.47's exporter, whose files for this family are kept as goldens. Producer and quant_method
// stay "modelopt", because loaders key on them; our own name goes into the metadata of the safetensors files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace nibble::checkpoint {

constexpr std::string_view kHfQuantConfigFile = "hf_quant_config.json";
constexpr std::string_view kQuantizationConfigKey = "quantization_config";  // in config.json

constexpr std::string_view kWeightSuffix = ".weight";
constexpr std::string_view kWeightScaleSuffix = ".weight_scale";
constexpr std::string_view kWeightScale2Suffix = ".weight_scale_2";
constexpr std::string_view kInputScaleSuffix = ".input_scale";

struct ModelOptConfig {
  /// True: quant_algo NVFP4, every quantized linear has an input_scale. False: W4A16_NVFP4, none has.
  bool quantized_inputs = false;
  /// Full names of the unquantized linears and convolutions, and wildcards such as "mtp*"; sorted, no duplicates.
  std::vector<std::string> exclude_modules;
};

/// The contents of hf_quant_config.json.
Json hf_quant_config(const ModelOptConfig& config);

/// The value of "quantization_config" in config.json.
Json quantization_config(const ModelOptConfig& config);

/// Text of a config file as we write it: two spaces of indentation and a final newline.
std::string config_text(const Json& json);

}  // namespace nibble::checkpoint

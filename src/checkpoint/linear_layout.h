// Which tensors a quantized linear becomes, in both layouts. N rows, K columns:
//
//            ModelOpt                               compressed-tensors
//   NVFP4    .weight          U8 [N,K/2]            .weight_packed        U8 [N,K/2], the same bytes
//            .weight_scale    F8_E4M3 [N,K/16]      .weight_scale         F8_E4M3 [N,K/16], the same bytes
//            .weight_scale_2  F32 [], multiplies    .weight_global_scale  F32 [1] = 1 / weight_scale_2, divides
//   (a4)     .input_scale     F32 [], multiplies    .input_global_scale   F32 [1] = 1 / input_scale, divides
//   SVDQuant .svdquant_lora_a BF16 [r,K], .svdquant_lora_b BF16 [N,r]     none
//   FP8      .weight          F8_E4M3 [N,K]         .weight               F8_E4M3 [N,K]
//            .weight_scale    F32 [] or [N]         .weight_scale         F32 [1] or [N,1], multiplies
//   (a8)     .input_scale     F32 []                .input_scale          F32 [1], multiplies
//
// Of codes the low nibble is the even element. The shapes of scalars matter: compressed-tensors' loader reads []
// without complaint and then divides in BF16.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/module_format.h"
#include "checkpoint/quantized_modules.h"
#include "io/safetensors_writer.h"
#include "ops/linear/linear.h"

namespace nibble::checkpoint {

constexpr std::string_view kWeightSuffix = ".weight";
constexpr std::string_view kWeightScaleSuffix = ".weight_scale";
constexpr std::string_view kWeightScale2Suffix = ".weight_scale_2";
constexpr std::string_view kInputScaleSuffix = ".input_scale";
constexpr std::string_view kLowRankASuffix = ".svdquant_lora_a";
constexpr std::string_view kLowRankBSuffix = ".svdquant_lora_b";
constexpr std::string_view kWeightPackedSuffix = ".weight_packed";
constexpr std::string_view kWeightGlobalScaleSuffix = ".weight_global_scale";
constexpr std::string_view kInputGlobalScaleSuffix = ".input_global_scale";

/// The tensors of a module of form `module`, weight [out,in], in the order in which append_linear writes them. rank > 0
/// with a low-rank branch; the ModelOpt layout only.
std::vector<TensorDeclaration> declare_linear(Layout layout, const QuantizedModule& module, int64_t out, int64_t in,
                                              int64_t rank);

/// Their bytes. `linear` has the form of `module`: its format, scales, an input_scale unless inputs are a16, and a
/// branch if module.low_rank.
Status append_linear(Layout layout, const QuantizedModule& module, const ops::Linear& linear,
                     ShardedSafetensorsWriter& writer);

}  // namespace nibble::checkpoint

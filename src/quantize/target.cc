#include "quantize/target.h"

namespace nibble::quantize {

Status check_target(const Plan& plan, checkpoint::Layout layout, std::string_view target) {
  if (target.empty()) return {};
  const bool modelopt = layout == checkpoint::Layout::modelopt;
  if (target == "trtllm" && !modelopt) {
    return unsupported("target: TensorRT-LLM reads hf_quant_config.json, which compressed-tensors folders have not")
        .with_hint("--format modelopt");
  }
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.rank > 0) {
      return unsupported("target: {}: {} refuses low-rank branches (NVFP4_SVD)", tensor.module, target)
          .with_hint("svdquant is served by nibble only; use gptq or awq_lite");
    }
    if (modelopt && tensor.format == Format::fp8 && tensor.inputs == Inputs::a16) {
      return unsupported("target: {}: ModelOpt's FP8 has rounded inputs, and {} expects their scale", tensor.module,
                         target)
          .with_hint("give the rule \"inputs\": \"a8\", or use --format compressed-tensors");
    }
  }
  return {};
}

}  // namespace nibble::quantize

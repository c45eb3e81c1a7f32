#include "checkpoint/linear_layout.h"

#include "tensor/numeric.h"

namespace nibble::checkpoint {

std::vector<TensorDeclaration> declare_linear(Layout layout, const QuantizedModule& module, int64_t out, int64_t in,
                                              int64_t rank) {
  const bool modelopt = layout == Layout::modelopt, four_bits = module.format == Format::nvfp4;
  const Shape one = modelopt ? Shape{} : Shape{1};
  std::vector<TensorDeclaration> list;
  const auto add = [&](std::string_view suffix, DType type, const Shape& shape) {
    list.emplace_back(module.name + std::string(suffix), type, shape);
  };
  if (four_bits) {
    add(modelopt ? kWeightSuffix : kWeightPackedSuffix, DType::u8, {out, in / 2});
    add(kWeightScaleSuffix, DType::f8e4m3, {out, in / kNvfp4Block});
    add(modelopt ? kWeightScale2Suffix : kWeightGlobalScaleSuffix, DType::f32, one);
  } else {
    const Shape channels = modelopt ? Shape{out} : Shape{out, 1};
    add(kWeightSuffix, DType::f8e4m3, {out, in});
    add(kWeightScaleSuffix, DType::f32, module.format == Format::fp8_channel ? channels : one);
  }
  if (module.inputs != Inputs::a16) {
    add(modelopt || !four_bits ? kInputScaleSuffix : kInputGlobalScaleSuffix, DType::f32, one);
  }
  if (rank > 0) {
    NIBBLE_CHECK(modelopt && module.low_rank);
    add(kLowRankASuffix, DType::bf16, {rank, in});
    add(kLowRankBSuffix, DType::bf16, {out, rank});
  }
  return list;
}

Status append_linear(Layout layout, const QuantizedModule& module, const ops::Linear& linear,
                     ShardedSafetensorsWriter& writer) {
  const bool modelopt = layout == Layout::modelopt, four_bits = module.format == Format::nvfp4;
  const auto append = [&](std::string_view suffix, const Tensor& tensor) {
    return writer.append(module.name + std::string(suffix), tensor);
  };
  const auto append_scalar = [&](std::string_view suffix, float value) {
    return append(suffix, Tensor::constant(&value, DType::f32, {1}));
  };
  NIBBLE_CHECK(module.inputs == Inputs::a16 || linear.input_scale > 0);
  if (four_bits) {
    NIBBLE_RETURN_IF_ERROR(append(modelopt ? kWeightSuffix : kWeightPackedSuffix, linear.weight));
    NIBBLE_RETURN_IF_ERROR(append(kWeightScaleSuffix, linear.block_scale));
    NIBBLE_RETURN_IF_ERROR(append_scalar(modelopt ? kWeightScale2Suffix : kWeightGlobalScaleSuffix,
                                         modelopt ? linear.tensor_scale : div_rn(1, linear.tensor_scale)));
  } else {
    NIBBLE_RETURN_IF_ERROR(append(kWeightSuffix, linear.weight));
    NIBBLE_RETURN_IF_ERROR(module.format == Format::fp8_channel
                               ? append(kWeightScaleSuffix, linear.channel_scale)
                               : append_scalar(kWeightScaleSuffix, linear.tensor_scale));
  }
  if (module.inputs != Inputs::a16) {
    const bool reciprocal = !modelopt && four_bits;
    NIBBLE_RETURN_IF_ERROR(append_scalar(reciprocal ? kInputGlobalScaleSuffix : kInputScaleSuffix,
                                         reciprocal ? div_rn(1, linear.input_scale) : linear.input_scale));
  }
  if (!module.low_rank) return {};
  NIBBLE_RETURN_IF_ERROR(append(kLowRankASuffix, linear.low_rank_a));
  return append(kLowRankBSuffix, linear.low_rank_b);
}

}  // namespace nibble::checkpoint

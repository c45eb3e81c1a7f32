#include "checkpoint/summary.h"

#include "model/names.h"

namespace nibble::checkpoint {

FormatSummary summarize(const model::Weights& weights) {
  FormatSummary out;
  uint64_t f32 = 0, bf16 = 0, nvfp4 = 0;
  weights.for_each_linear([&](std::string_view, const ops::Linear& linear) {
    uint64_t& bytes = linear.format == ops::WeightFormat::nvfp4  ? nvfp4
                      : linear.format == ops::WeightFormat::bf16 ? bf16
                                                                 : f32;
    bytes += linear.weight_bytes();
  });
  out.format = nvfp4 > 0 ? "nvfp4" : bf16 >= f32 ? "bf16" : "f32";
  for (const model::TensorSlot& slot : model::text_slots(weights.config, weights.prefix, weights.tied)) {
    out.text_parameters += static_cast<uint64_t>(slot.shape.elements());
  }
  out.bytes_per_token = model::bytes_per_token(weights);
  return out;
}

FormatSummary summarize(const model::Weights& weights, const SafetensorsFolder& files) {
  FormatSummary out = summarize(weights);
  for (const SafetensorsFolder::Entry& entry : files.tensors()) {
    out.dtype_bytes[entry.info->dtype] += entry.info->bytes;
    out.file_bytes += entry.info->bytes;
    const model::Part part = model::part_of(entry.info->name);
    out.has_mtp |= part == model::Part::mtp;
    out.has_vision |= part == model::Part::visual;
  }
  return out;
}

}  // namespace nibble::checkpoint

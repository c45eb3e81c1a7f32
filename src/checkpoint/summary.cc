#include "checkpoint/summary.h"

#include <vector>

#include "checkpoint/activations.h"
#include "model/names.h"

namespace nibble::checkpoint {

namespace {

const char* name(ops::WeightFormat format) {
  switch (format) {
    case ops::WeightFormat::f32:
      return "f32";
    case ops::WeightFormat::bf16:
      return "bf16";
    case ops::WeightFormat::fp8:
      return "fp8";
    case ops::WeightFormat::nvfp4:
      return "nvfp4";
  }
  return "?";
}

}  // namespace

std::string FormatSummary::text() const {
  std::string out = format;
  if (format == "mixed") {
    std::vector<std::string> parts;
    for (const auto& [format_name, count] : linears) parts.push_back(fmt::format("{} {}", count, format_name));
    out += fmt::format(" ({}, {:.2f} bits a weight)", fmt::join(parts, ", "), effective_bits);
  }
  return activations == "a16" ? out : out + ", activations " + activations;
}

FormatSummary summarize(const model::Weights& weights) {
  FormatSummary out;
  std::map<ops::WeightFormat, uint64_t> bytes;
  uint64_t quantized_bytes = 0, quantized_weights = 0;
  weights.for_each_linear([&](std::string_view, const ops::Linear& linear) {
    bytes[linear.format] += linear.weight_bytes();
    ++out.linears[name(linear.format)];
    if (linear.format != ops::WeightFormat::fp8 && linear.format != ops::WeightFormat::nvfp4) return;
    quantized_bytes += linear.weight_bytes();
    quantized_weights += static_cast<uint64_t>(linear.out * linear.in);
  });
  const uint64_t nvfp4 = bytes[ops::WeightFormat::nvfp4], fp8 = bytes[ops::WeightFormat::fp8];
  const bool half = bytes[ops::WeightFormat::bf16] >= bytes[ops::WeightFormat::f32];
  out.format = nvfp4 > 0 && fp8 > 0 ? "mixed" : nvfp4 > 0 ? "nvfp4" : fp8 > 0 ? "fp8" : half ? "bf16" : "f32";
  if (quantized_weights > 0) {
    out.effective_bits = 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized_weights);
  }
  out.activations = activations_of(weights);
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

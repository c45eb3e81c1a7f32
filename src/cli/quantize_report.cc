#include "cli/quantize_report.h"

#include "cli/terminal.h"

namespace nibble::cli {
namespace {

using quantize::Format;
using quantize::Inputs;
using quantize::PlannedTensor;

// "nvfp4", "nvfp4 a4", "fp8 a8", or the type in the source.
std::string format_of(const PlannedTensor& tensor) {
  if (!tensor.quantized()) return tensor.source->dtype;
  std::string text(format_name(tensor.format));
  if (tensor.inputs != Inputs::a16) text += " " + std::string(inputs_name(tensor.inputs));
  if (tensor.rank > 0) text += fmt::format(" + rank {}", tensor.rank);
  return text;
}

// "48 nvfp4, 26 fp8"
std::string counts(const quantize::QuantizeReport& report) {
  std::string text;
  for (Format format : {Format::nvfp4, Format::fp8, Format::fp8_channel}) {
    const auto count = std::count_if(report.quantized.begin(), report.quantized.end(),
                                     [&](const auto& tensor) { return tensor.format == format; });
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, format_name(format));
  }
  return text;
}

}  // namespace

Json plan_json(const quantize::Plan& plan) {
  Json rows = Json::array();
  for (const PlannedTensor& t : plan.tensors) {
    rows.push_back({{"tensor", t.name},
                    {"format", t.quantized() ? format_name(t.format) : t.source->dtype},
                    {"inputs", inputs_name(t.inputs)},
                    {"bytes", t.bytes},
                    {"reason", t.reason}});
  }
  return {{"tensors", rows},
          {"bytes", plan.bytes},
          {"bytes_per_token", plan.bytes_per_token},
          {"effective_bits", plan.effective_bits},
          {"effective_bits_with_head", plan.effective_bits_with_head}};
}

void print_plan(const quantize::Plan& plan) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "format", "size", "why"}};
  for (const PlannedTensor& t : plan.tensors) {
    rows.push_back({t.name, format_of(t), human_bytes(t.bytes), t.reason});
  }
  fmt::print("{}\n{} -> {}, {:.2f} bits a weight of the linears, {:.2f} with the head; a token reads {}\n", table(rows),
             human_bytes(plan.source_bytes), human_bytes(plan.bytes), plan.effective_bits,
             plan.effective_bits_with_head, human_bytes(plan.bytes_per_token));
}

Json report_json(const quantize::QuantizeReport& report, const QuantizeFlags& flags) {
  Json rows = Json::array();
  for (const quantize::QuantizedTensor& t : report.quantized) {
    rows.push_back({{"module", t.module},
                    {"format", format_name(t.format)},
                    {"tensor_scale", t.tensor_scale},
                    {"relative_error", t.stats.relative_error()},
                    {"blocks", t.stats.blocks},
                    {"blocks_at_floor", t.stats.floor_blocks},
                    {"blocks_below_2^-6", t.stats.low_blocks},
                    {"blocks_at_top", t.stats.top_blocks}});
  }
  return {{"output", flags.output.string()},
          {"adapter", flags.adapter.empty() ? Json() : Json(flags.adapter.string())},
          {"recipe", flags.options.recipe.name},
          {"layout", flags.format},
          {"algo", report.algo},
          {"bytes_before", report.source_bytes},
          {"bytes_after", report.bytes},
          {"bytes_per_token", report.bytes_per_token},
          {"effective_bits", report.effective_bits},
          {"effective_bits_with_head", report.effective_bits_with_head},
          {"relative_error", report.relative_error()},
          {"seconds", report.seconds},
          {"tensors", rows}};
}

void print_report(const quantize::QuantizeReport& report, const QuantizeFlags& flags) {
  int64_t floor = 0, blocks = 0;
  const quantize::QuantizedTensor* worst = nullptr;
  for (const quantize::QuantizedTensor& t : report.quantized) {
    floor += t.stats.floor_blocks;
    blocks += t.stats.blocks;
    if (worst == nullptr || t.stats.relative_error() > worst->stats.relative_error()) worst = &t;
  }
  const std::string merged = flags.adapter.empty() ? "" : ", with adapter " + flags.adapter.string() + " merged";
  fmt::print("wrote {}{}\n\n", flags.output.string(), merged);
  fmt::print("{}", table({{"format", fmt::format("{} ({}), {}", report.algo, flags.format, counts(report))},
                          {"size", human_bytes(report.source_bytes) + " -> " + human_bytes(report.bytes)},
                          {"bits a weight", fmt::format("{:.2f} of the linears, {:.2f} with the head",
                                                        report.effective_bits, report.effective_bits_with_head)},
                          {"read per token", human_bytes(report.bytes_per_token)},
                          {"squared error", fmt::format("{:.6f} of the weights' energy", report.relative_error())},
                          {"worst tensor", fmt::format("{}, {:.6f}", worst->module, worst->stats.relative_error())},
                          {"blocks too small", fmt::format("{} of {}", floor, blocks)},
                          {"time", fmt::format("{:.2f} s", report.seconds)}}));
}

}  // namespace nibble::cli

#include "cli/quantize_report.h"

#include <functional>
#include <numeric>

#include "cli/terminal.h"
#include "gate/machines.h"

namespace nibble::cli {
namespace {

using gate::kMachines;

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

Json report_json(const QuantizeResult& result, const QuantizeFlags& flags) {
  const quantize::CalibratedReport& made = result.made;
  const quantize::QuantizeReport& report = made.report;
  std::map<std::string, const PlannedTensor*> planned;
  for (const PlannedTensor& tensor : result.job->plan.tensors) planned[tensor.module] = &tensor;
  std::map<std::string, const quantize::FormatGroup*> groups;
  if (made.mixed) {
    for (const quantize::FormatGroup& group : made.mixed->groups) {
      for (const std::string& module : group.modules) groups[module] = &group;
    }
  }
  Json rows = Json::array();
  for (const quantize::QuantizedTensor& t : report.quantized) {
    const PlannedTensor& tensor = *planned.at(t.module);
    const auto weights = static_cast<double>(tensor.source->shape[0] * tensor.source->shape[1]);
    Json row = {{"module", t.module},
                {"format", format_name(t.format)},
                {"inputs", inputs_name(tensor.inputs)},
                {"bits", 8 * static_cast<double>(tensor.bytes) / weights},
                {"tensor_scale", t.tensor_scale},
                {"relative_error", t.stats.relative_error()},
                {"max_error", t.stats.max_error},
                {"blocks", t.stats.blocks},
                {"blocks_at_floor", t.stats.floor_blocks},
                {"blocks_below_2^-6", t.stats.low_blocks},
                {"blocks_at_top", t.stats.top_blocks}};
    if (const auto loss = made.losses.find(t.module); loss != made.losses.end()) row["output_error"] = loss->second;
    if (const auto note = made.notes.find(t.module); note != made.notes.end()) row["note"] = note->second;
    if (const auto group = groups.find(t.module); group != groups.end()) row["sensitivity"] = group->second->scores;
    rows.push_back(std::move(row));
  }
  const auto tok_s = [&](double bytes_per_second) {
    return bytes_per_second / static_cast<double>(std::max<uint64_t>(1, report.bytes_per_token));
  };
  int64_t parameters = 0;  // of all tensors of the source, a tied head once
  for (const PlannedTensor& tensor : result.job->plan.tensors) {
    const bool again = result.job->plan.untied && &tensor == &result.job->plan.tensors.back();
    const std::vector<int64_t>& shape = tensor.source->shape;
    parameters += again ? 0 : std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
  return {{"source", folder_name(flags.dir)},
          {"adapter", flags.adapter.empty() ? Json() : Json(flags.adapter.string())},
          {"recipe", flags.options.recipe.name},
          {"layout", flags.format},
          {"algo", report.algo},
          {"exclude", flags.options.exclude},
          {"parameters", parameters},
          {"bytes_before", report.source_bytes},
          {"bytes_after", report.bytes},
          {"bytes_per_token", report.bytes_per_token},
          {"effective_bits", report.effective_bits},
          {"effective_bits_with_head", report.effective_bits_with_head},
          {"relative_error", report.relative_error()},
          {"calibration_tokens", made.tokens},
          {"divergence", result.divergence ? result.divergence->json() : Json()},
          {"roofline_tok_s",
           {{"gb10", tok_s(kMachines[0].bytes_per_second)}, {"h200", tok_s(kMachines[1].bytes_per_second)}}},
          {"mixed", made.mixed ? to_json(*made.mixed) : Json()},
          {"tensors", rows}};
}

void print_report(const QuantizeResult& result, const QuantizeFlags& flags) {
  const quantize::CalibratedReport& made = result.made;
  const std::optional<gate::Divergence>& divergence = result.divergence;
  const quantize::QuantizeReport& report = made.report;
  const auto tok_s = [&](double bytes_per_second) {
    return bytes_per_second / static_cast<double>(report.bytes_per_token);
  };
  int64_t floor = 0, blocks = 0;
  const quantize::QuantizedTensor* worst = nullptr;
  for (const quantize::QuantizedTensor& t : report.quantized) {
    floor += t.stats.floor_blocks;
    blocks += t.stats.blocks;
    if (worst == nullptr || t.stats.relative_error() > worst->stats.relative_error()) worst = &t;
  }
  const std::string merged = flags.adapter.empty() ? "" : ", with adapter " + flags.adapter.string() + " merged";
  fmt::print("wrote {}{}\n\n", flags.output.string(), merged);
  const std::string kl =
      divergence
          ? fmt::format("mean {:.6f} ± {:.6f}, median {:.6f}, p99 {:.4f}; same top token {:.2f} %", divergence->mean_kl,
                        divergence->standard_error, divergence->median_kl, divergence->p99_kl, divergence->top1 * 100)
          : "not measured: no --calib and no --holdout";
  fmt::print(
      "{}",
      table({{"format", fmt::format("{} ({}), {}", report.algo, flags.format, counts(report))},
             {"size", human_bytes(report.source_bytes) + " -> " + human_bytes(report.bytes)},
             {"bits a weight", fmt::format("{:.2f} of the linears, {:.2f} with the head", report.effective_bits,
                                           report.effective_bits_with_head)},
             {"read per token", fmt::format("{}: at most {:.0f} tok/s on a GB10, {:.0f} on an H200, {:.0f} here",
                                            human_bytes(report.bytes_per_token), tok_s(kMachines[0].bytes_per_second),
                                            tok_s(kMachines[1].bytes_per_second), tok_s(result.bytes_per_second_here))},
             {"squared error", fmt::format("{:.6f} of the weights' energy", report.relative_error())},
             {"worst tensor", fmt::format("{}, {:.6f}", worst->module, worst->stats.relative_error())},
             {"blocks too small", fmt::format("{} of {}", floor, blocks)},
             {"KL to the source", kl},
             {"time", fmt::format("{:.2f} s", made.seconds)}}));
}

}  // namespace nibble::cli

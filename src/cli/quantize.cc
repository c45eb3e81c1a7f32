#include "quantize/quantize.h"

#include "checkpoint/adapter.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir, adapter, output, calib;
  quantize::QuantizeOptions options;
  int64_t samples = 512;
  int threads = 0;
  bool plan = false, json = false;
};

Json plan_json(const quantize::Plan& plan) {
  Json rows = Json::array();
  for (const quantize::PlannedTensor& t : plan.tensors) {
    rows.push_back({{"tensor", t.source->name},
                    {"format", t.quantized() ? "nvfp4" : t.source->dtype},
                    {"bytes", t.bytes},
                    {"reason", t.reason}});
  }
  return {{"tensors", rows}, {"bytes", plan.bytes}, {"bytes_per_token", plan.bytes_per_token}};
}

void print_plan(const quantize::Plan& plan) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "format", "size", "why"}};
  for (const quantize::PlannedTensor& t : plan.tensors) {
    rows.push_back({t.source->name, t.quantized() ? "nvfp4" : t.source->dtype, human_bytes(t.bytes), t.reason});
  }
  fmt::print("{}\n{} -> {}, a token reads {}\n", table(rows), human_bytes(plan.source_bytes), human_bytes(plan.bytes),
             human_bytes(plan.bytes_per_token));
}

Json report_json(const quantize::QuantizeReport& report, const Flags& flags) {
  Json rows = Json::array();
  for (const quantize::QuantizedTensor& t : report.quantized) {
    rows.push_back({{"module", t.module},
                    {"tensor_scale", t.tensor_scale},
                    {"relative_error", t.stats.relative_error()},
                    {"blocks", t.stats.blocks},
                    {"blocks_at_floor", t.stats.floor_blocks},
                    {"blocks_below_2^-6", t.stats.low_blocks},
                    {"blocks_at_top", t.stats.top_blocks}});
  }
  return {{"output", flags.output.string()},
          {"adapter", flags.adapter.empty() ? Json() : Json(flags.adapter.string())},
          {"strategy", flags.options.strategy},
          {"algo", flags.options.input_amax.empty() ? "W4A16_NVFP4" : "NVFP4"},
          {"bytes_before", report.source_bytes},
          {"bytes_after", report.bytes},
          {"bytes_per_token", report.bytes_per_token},
          {"relative_error", report.relative_error()},
          {"seconds", report.seconds},
          {"tensors", rows}};
}

void print_report(const quantize::QuantizeReport& report, const Flags& flags) {
  int64_t floor = 0, blocks = 0;
  const quantize::QuantizedTensor* worst = nullptr;
  for (const quantize::QuantizedTensor& t : report.quantized) {
    floor += t.stats.floor_blocks;
    blocks += t.stats.blocks;
    if (worst == nullptr || t.stats.relative_error() > worst->stats.relative_error()) worst = &t;
  }
  const std::string merged = flags.adapter.empty() ? "" : ", with adapter " + flags.adapter.string() + " merged";
  fmt::print("wrote {}{}\n\n", flags.output.string(), merged);
  fmt::print("{}", table({{"format", flags.options.input_amax.empty() ? "W4A16_NVFP4: weights only"
                                                                      : "NVFP4: weights, and inputs by static scales"},
                          {"size", human_bytes(report.source_bytes) + " -> " + human_bytes(report.bytes)},
                          {"read per token", human_bytes(report.bytes_per_token)},
                          {"squared error", fmt::format("{:.6f} of the weights' energy", report.relative_error())},
                          {"worst tensor", fmt::format("{}, {:.6f}", worst->module, worst->stats.relative_error())},
                          {"blocks too small", fmt::format("{} of {}", floor, blocks)},
                          {"time", fmt::format("{:.2f} s", report.seconds)}}));
}

Result<int> run(Flags flags) {
  flags.options.cancel = interrupt_token();
  ThreadPool pool(flags.threads);
  if (!flags.adapter.empty()) {
    NIBBLE_TRY(adapter, checkpoint::Adapter::open(flags.adapter));
    NIBBLE_TRY(merged, checkpoint::merged_tensors(pool, std::make_shared<const checkpoint::Adapter>(std::move(adapter)),
                                                  flags.dir));
    flags.options.replace = std::move(merged);
  }
  if (flags.plan) {
    NIBBLE_TRY(job, quantize::plan_folder(flags.dir, flags.options));
    flags.json ? print_json(plan_json(job.plan)) : print_plan(job.plan);
    return 0;
  }
  if (flags.output.empty()) {
    return invalid_argument("quantize: expected --output OUT").with_hint("or --plan, to see what would be done");
  }
  if (!flags.calib.empty()) {
    NIBBLE_TRY(open, open_model(flags.dir, flags.adapter));
    Context cx(pool, Numeric::exact);
    cx.cancel = flags.options.cancel;
    NIBBLE_TRY(amax, calibrated_amax(cx, open, flags.calib, flags.samples));
    flags.options.input_amax = std::move(amax);
  }
  ProgressBar bar("quantize", true);
  flags.options.progress = bar.callback();
  NIBBLE_TRY(report, quantize::quantize_folder(flags.dir, flags.output, flags.options, pool));
  flags.json ? print_json(report_json(report, flags)) : print_report(report, flags);
  return 0;
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("quantize", "BF16 -> NVFP4, in the layout that vLLM, SGLang and TensorRT-LLM load");
  command->footer(
      "Quantizes the projections of attention, delta rule and MLP to four bits a weight with one scale for 16 weights\n"
      "(4.5 bits in all); norms, gates, embedding and head stay. Tensors stream through, so memory stays small for\n"
      "any size. Strategy max maps the largest weight of a block to the largest code; mse takes the scale with the\n"
      "smallest squared error, which costs more time and less quality. With --calib the inputs get static scales too\n"
      "(quant_algo NVFP4), else only weights are quantized (W4A16_NVFP4). The source is never changed; the output\n"
      "appears complete or not at all.\n\n"
      "  nibble quantize models/tiny-voice --output out/tiny-voice-nvfp4\n"
      "  nibble quantize models/tiny-voice --strategy mse --output out/tiny-voice-mse\n"
      "  nibble quantize models/tiny-voice --calib chat.jsonl --output out/tiny-voice-w4a4\n"
      "  nibble quantize models/tiny-voice --adapter lora --output out/tuned-nvfp4\n"
      "  nibble quantize models/tiny-voice --exclude '*layers.0.*' --plan");
  command->add_option("DIR", flags->dir, "a BF16, F16 or F32 checkpoint folder")->required();
  add_adapter_flag(*command, flags->adapter);
  command->add_option("--output", flags->output, "new folder for the result");
  command->add_option("--strategy", flags->options.strategy, "how block scales are chosen: max or mse")
      ->check(CLI::IsMember({"max", "mse"}))
      ->capture_default_str();
  command->add_option("--calib", flags->calib, "conversations as chat JSONL: quantize inputs too");
  command->add_option("--samples", flags->samples, "conversations to calibrate on (0 = all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--exclude", flags->options.exclude, "name patterns of what stays as it is")->delimiter(',');
  command->add_option("--threads", flags->threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--plan", flags->plan, "print what would be done and why, and stop");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

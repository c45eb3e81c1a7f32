#include "cli/bench_device.h"

#include "base/clock.h"
#include "cli/memory_flags.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "model/batch_runner.h"

namespace nibble::cli {
namespace {

void print_report(const gate::DeviceBenchReport& report, const std::string& what) {
  fmt::print("{}\n{}; a copy moves {:.0f} GB/s; a token reads {} of weights; {} of weights, {} beside them\n\n", what,
             report.device.name, report.probe_gb_s, human_bytes(report.weight_bytes_per_token),
             human_bytes(report.weight_bytes), human_bytes(report.state_bytes));
  std::vector<std::vector<std::string>> rows = {{"prompt", "first token ms", "tok/s", "TFLOP/s"}};
  for (const gate::PromptPoint& p : report.prompts) {
    rows.push_back({std::to_string(p.tokens), fmt::format("{:.2f}", p.ms), fmt::format("{:.0f}", p.tok_s),
                    fmt::format("{:.1f}", p.tflop_s)});
  }
  if (rows.size() > 1) fmt::print("{}\n", table(rows));
  rows = {{"depth", "sequences", "step ms", "tok/s", "GB/s", "% of copy", "kernels"}};
  for (const gate::SpeechPoint& p : report.speech) {
    rows.push_back({std::to_string(p.depth), std::to_string(p.sequences), fmt::format("{:.3f}", p.step_ms),
                    fmt::format("{:.1f}", p.tok_s), fmt::format("{:.0f}", p.gb_s), fmt::format("{:.1f}", p.share * 100),
                    std::to_string(p.nodes)});
  }
  if (rows.size() > 1) fmt::print("{}\n", table(rows));
  rows = {{"sampled after", "sequences", "step ms", "greedy ms", "more ms"}};
  for (const gate::SampledPoint& p : report.sampled) {
    rows.push_back({std::to_string(p.depth), std::to_string(p.sequences), fmt::format("{:.3f}", p.step_ms),
                    fmt::format("{:.3f}", p.greedy_ms), fmt::format("{:.3f}", p.step_ms - p.greedy_ms)});
  }
  if (rows.size() > 1) fmt::print("{}", table(rows));
  for (const gate::PromptPoint& p : report.prompts) {
    print_ops(p.ops, fmt::format("prompt of {}", p.tokens), report.probe_gb_s);
  }
  const auto step = [](const auto& p) {
    return fmt::format("a step after {} tokens, {} sequence{}", p.depth, p.sequences, p.sequences == 1 ? "" : "s");
  };
  for (const gate::SpeechPoint& p : report.speech) print_ops(p.ops, step(p), report.probe_gb_s);
  for (const gate::SampledPoint& p : report.sampled) print_ops(p.ops, step(p) + ", sampled", report.probe_gb_s);
}

}  // namespace

void print_ops(const gate::OpTable& ops, const std::string& what, double probe_gb_s) {
  if (ops.empty()) return;
  const bool moves = ops.sum().bytes > 0;
  using Cells = std::vector<std::string>;
  std::vector<Cells> rows = {moves ? Cells{what, "count", "us", "%", "MB", "GB/s", "% of probe"}
                                   : Cells{what, "count", "us", "%", "GFLOP", "TFLOP/s"}};
  const auto add = [&](const gate::OpRow& row) {
    Cells cells = {row.op, row.count > 0 ? std::to_string(row.count) : "", fmt::format("{:.2f}", row.us),
                   fmt::format("{:.1f}", 100 * row.us / ops.whole_us)};
    if (moves && row.bytes > 0) {
      cells.insert(cells.end(), {fmt::format("{:.2f}", row.bytes * 1e-6), fmt::format("{:.0f}", row.gb_s()),
                                 fmt::format("{:.1f}", 100 * row.gb_s() / probe_gb_s)});
    } else if (row.flops > 0) {
      cells.insert(cells.end(), {fmt::format("{:.2f}", row.flops * 1e-9), fmt::format("{:.2f}", row.tflop_s())});
    }
    cells.resize(rows[0].size());
    rows.push_back(std::move(cells));
  };
  for (const gate::OpRow& row : ops.rows) add(row);
  gate::OpRow whole = ops.sum();
  add(whole);
  add({.op = ops.rest_us() < 0 ? "overlap of ops" : "between ops", .us = ops.rest_us()});
  whole.op = "as it runs";
  whole.count = 0;
  whole.us = ops.whole_us;
  add(whole);
  fmt::print("\n{}a mark takes {:.2f} us, taken off\n", table(rows), ops.mark_us);
}

void add_device_bench_flags(CLI::App& command, DeviceBenchFlags& flags) {
  command.add_option("--device", flags.device, "cpu, cuda or cuda:N")->capture_default_str();
  add_memory_limit_flag(command, flags.memory_limit);
  command.add_option("--prompts", flags.options.prompts, "on a GPU: lengths of prompts that are read")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--batches", flags.options.batches, "on a GPU: sequences that speak at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
}

Result<int> bench_device(const DeviceBenchFlags& flags, const checkpoint::LoadedModel& model, const std::string& what,
                         ThreadPool& pool, bool json) {
  NIBBLE_TRY(device, parse_device(flags.device));
  NIBBLE_TRY(plan, engine::empty_plan(device, flags.memory_limit));
  const gate::DeviceBenchOptions options =
      gate::fitting(flags.options, model.weights.config, flags.prompts_asked, flags.depths_asked);
  plan.items = {{"weights", model::device_bytes(model.weights)},
                {"states, scratch and logits", gate::device_bench_bytes(model.weights.config, options)}};
  if (!json) print_plan(plan);
  NIBBLE_RETURN_IF_ERROR(engine::fits(plan, "fewer --batches, or smaller --depths and --prompts"));
  NIBBLE_TRY(stream, Stream::open(device));
  Context cx(pool, Numeric::bf16_act, *stream);
  cx.cancel = interrupt_token();
  NIBBLE_RETURN_IF_ERROR(cx.arena.reserve(model::kUploadBytes));
  const Stopwatch clock;
  NIBBLE_TRY(weights, model::to_device(cx, model.weights));
  const double upload_s = clock.seconds();
  ProgressBar bar("bench");
  NIBBLE_TRY(report, gate::device_bench(cx, weights, options, bar.callback()));
  if (json) {
    Json out = report.json();
    out["model"] = what;
    out["upload_s"] = upload_s;
    out["memory"] = plan_json(plan);
    out["version"] = kVersion;
    print_json(out);
  } else {
    print_report(report, what);
  }
  return 0;
}

}  // namespace nibble::cli

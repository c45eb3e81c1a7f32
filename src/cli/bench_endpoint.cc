#include "cli/bench_endpoint.h"

#include <algorithm>

#include "base/machine.h"
#include "cli/run_folder.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "gate/speed_html.h"
#include "gate/speed_report.h"

namespace nibble::cli {
namespace {

constexpr gate::Sweep kSweeps[] = {gate::Sweep::context, gate::Sweep::conversation, gate::Sweep::concurrency,
                                   gate::Sweep::output};
constexpr int64_t kMaxTokens = 1 << 20;

// What the flags leave open.
void complete_options(EndpointBenchFlags& flags) {
  gate::SpeedOptions& options = flags.options;
  if (flags.quick) {
    const gate::SpeedOptions whole;
    const auto instead = [](auto& value, const auto& by_default, std::decay_t<decltype(value)> quick) {
      if (value == by_default) value = std::move(quick);
    };
    instead(options.contexts, whole.contexts, {128, 512});
    instead(options.clients, whole.clients, {1, 4});
    instead(options.outputs, whole.outputs, {32});
    instead(options.requests, whole.requests, 5);
    instead(options.warmup, whole.warmup, 1);
    instead(options.conversations, whole.conversations, 1);
  }
  if (!flags.sweeps.empty()) {
    std::erase_if(options.sweeps, [&](gate::Sweep sweep) {
      return std::find(flags.sweeps.begin(), flags.sweeps.end(), gate::name(sweep)) == flags.sweeps.end();
    });
  }
  options.params = {{"temperature", 0}, {"seed", 1}};
  if (flags.thinking != "default") options.params["chat_template_kwargs"]["enable_thinking"] = flags.thinking == "on";
  if (flags.ignore_eos) options.params["ignore_eos"] = true;
  options.seed = static_cast<uint64_t>(flags.seed > 0 ? flags.seed : static_cast<int64_t>(std::time(nullptr)));
  options.endpoint.first_token_s = flags.first_token_s;
  options.endpoint.idle_s = std::max(options.endpoint.idle_s, flags.first_token_s);
  options.endpoint.reply_s = std::max(options.endpoint.reply_s, 4 * flags.first_token_s);
}

Json about(const EndpointBenchFlags& flags, const PlayedServer& server, const std::string& started, double seconds) {
  const gate::SpeedOptions& options = flags.options;
  return {{"command", "bench"},
          {"started", started},
          {"seconds", seconds},
          {"model", options.endpoint.model},
          {"endpoint", options.endpoint.url},
          {"server", server.about},
          {"params", options.params},
          {"seed", options.seed},
          {"requests", options.requests},
          {"warmup", options.warmup},
          {"max_tokens", options.max_tokens},
          {"seconds_a_point", options.seconds},
          {"machine", machine_name()},
          {"nibble", kVersion}};
}

void print_report(const gate::SpeedReport& report) {
  for (const gate::SpeedTable& part : gate::speed_tables(report, false)) {
    std::vector<std::vector<std::string>> rows = {part.head};
    rows[0][0] = part.title;
    rows.insert(rows.end(), part.rows.begin(), part.rows.end());
    fmt::print("{}\n", table(rows));
  }
  if (report.growth.ratio > 0) {
    fmt::print("turns 16-20 take {:.2f} [{:.2f} {:.2f}] times as long to their first token as turns 2-4\n",
               report.growth.ratio, report.growth.interval.low, report.growth.interval.high);
  }
  if (report.first_ttfat_ms) fmt::print("the very first token came after {:.4g} ms\n", *report.first_ttfat_ms);
  fmt::print("times are median [95 % interval of the median] p95; * drifts by more than a tenth\n");
  for (const std::string& remark : report.remarks) fmt::print("{}\n", remark);
}

// bench.json, bench.html, and the run for nibble runs, in the folder that holds the run's own.
Status write_run(const Path& output, const gate::SpeedReport& report, const gate::SpeedRun& run, int code) {
  NIBBLE_RETURN_IF_ERROR(gate::write_speed_json(output / "bench.json", report, run));
  NIBBLE_RETURN_IF_ERROR(gate::write_speed_html(output / "bench.html", report));
  // A gate that ran into the same folder keeps its name.
  const char* suffix = std::filesystem::exists(output / "run.jsonl") ? "-speed" : "";
  return remember_run(output, {.id = suffix,
                               .command = "bench",
                               .started = report.run["started"].get<std::string>(),
                               .recipe = "speed",
                               .model = report.run["model"].get<std::string>(),
                               .cases = report.requests,
                               .passed = report.requests - report.failed,
                               .exit_code = code,
                               .report = gate::to_json(report)});
}

}  // namespace

Result<int> bench_endpoint(EndpointBenchFlags flags, bool json) {
  if (!flags.http && !flags.server.model.empty()) {
    return invalid_argument("bench: expected a folder or --endpoint, got both")
        .with_hint("--http measures the folder through a server of its own");
  }
  if (flags.http && flags.server.model.empty()) return invalid_argument("bench: --http needs the folder to serve");
  complete_options(flags);
  if (!flags.output.empty()) NIBBLE_RETURN_IF_ERROR(create_run_folder(flags.output, "bench"));
  NIBBLE_TRY(server, open_server(flags.server, "bench"));
  gate::EndpointOptions& endpoint = flags.options.endpoint;
  endpoint.url = server.endpoint.url;
  endpoint.api_key = server.endpoint.api_key;
  endpoint.model = server.endpoint.model;
  endpoint.cancel = server.endpoint.cancel;

  const std::string started = utc_now();
  const Stopwatch watch;
  gate::SpeedRun run;
  Status status;
  {
    ProgressBar bar("bench");
    status = gate::run_speed_bench(flags.options, run, bar.callback());
  }
  gate::SpeedReport report = gate::speed_report(run);
  report.run = about(flags, server, started, watch.seconds());
  report.complete = status.ok();
  const int code = status.code() == Code::cancelled ? 130 : !status.ok() || report.failed > 0 ? 2 : 0;
  if (report.requests > 0 || status.ok()) {
    if (!flags.output.empty()) NIBBLE_RETURN_IF_ERROR(write_run(flags.output, report, run, code));
    if (json) {
      print_json(gate::to_json(report));
    } else {
      print_report(report);
    }
  }
  if (status.code() == Code::cancelled) return cancelled("bench: stopped after {} measured requests", report.requests);
  NIBBLE_RETURN_IF_ERROR(status);
  return code;
}

void add_endpoint_bench_flags(CLI::App& command, EndpointBenchFlags& flags) {
  const char* group = "Options for a server";
  gate::SpeedOptions& options = flags.options;
  const auto list = [&](const char* name, std::vector<int64_t>& values, const char* what, int64_t most) {
    command.add_option(name, values, what)
        ->delimiter(',')
        ->check(CLI::Range(int64_t{1}, most))
        ->capture_default_str()
        ->group(group);
  };
  const auto count = [&](const char* name, int64_t& value, const char* what, int64_t least, int64_t most) {
    command.add_option(name, value, what)->check(CLI::Range(least, most))->capture_default_str()->group(group);
  };
  command.add_option("--endpoint", flags.server.endpoint, "measure this running server: its base URL")->group(group);
  command.add_flag("--http", flags.http, "measure DIR through a server on loopback")->group(group);
  command.add_option("--endpoint-model,--model", flags.server.served_name, "model id to ask for (default: the first)")
      ->group(group);
  command.add_option("--api-key-file", flags.server.api_key_file, "file with the server's key")->group(group);
  std::vector<std::string> names;
  for (const gate::Sweep sweep : kSweeps) names.emplace_back(gate::name(sweep));
  command.add_option("--sweeps", flags.sweeps, "which to run (default: all)")
      ->delimiter(',')
      ->check(CLI::IsMember(names))
      ->group(group);
  list("--contexts", options.contexts, "tokens of a prompt", kMaxTokens);
  list("--concurrency", options.clients, "clients at once", 256);
  list("--outputs", options.outputs, "tokens that a reply may have", kMaxTokens);
  count("--turns", options.turns, "turns of a conversation", 1, 1000);
  count("--conversations", options.conversations, "how many are held", 1, 1000);
  count("--requests", options.requests, "requests of a point", gate::kFewestRequests, 100'000);
  count("--warmup", options.warmup, "requests before the first point", 0, 1000);
  count("--max-tokens", options.max_tokens, "of a reply", 2, kMaxTokens);
  command
      .add_option("--seconds", options.seconds,
                  "a point sends no more requests after so long (3 at least; 0 = all of them)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str()
      ->group(group);
  command.add_option("--timeout", flags.first_token_s, "seconds that a reply may take to its first token")
      ->check(CLI::Range(1.0, 1e5))
      ->capture_default_str()
      ->group(group);
  command.add_option("--seed", flags.seed, "of the prompts, for the same ones again (default: the clock)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 53))
      ->group(group);
  command.add_option("--thinking", flags.thinking, "enable_thinking: on, off, or default (leave it out)")
      ->check(CLI::IsMember({"on", "off", "default"}))
      ->capture_default_str()
      ->group(group);
  command.add_flag("--ignore-eos", flags.ignore_eos, "ask for replies of full length, where the server knows how")
      ->group(group);
  command.add_flag("--quick", flags.quick, "few sizes and requests: about a minute")->group(group);
  command.add_option("--output", flags.output, "folder for bench.json and bench.html")->group(group);
}

}  // namespace nibble::cli

#include <cctype>

#include "checkpoint/synthetic.h"
#include "cli/bench_device.h"
#include "cli/bench_endpoint.h"
#include "cli/bench_project.h"
#include "cli/bench_train.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "gate/bench.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir, adapter, write;
  std::string random, format = "bf16", head = "bf16", act;
  gate::BenchOptions options;
  TrainBenchFlags train;
  EndpointBenchFlags endpoint;
  DeviceBenchFlags device;
  ProjectBenchFlags project;
  int threads = 0;
  bool exact = false, json = false, profile = false;
};

Result<int> write_random(const Flags& flags, const CancelToken& cancel) {
  ProgressBar bar("write", true);
  ThreadPool pool(flags.threads);
  checkpoint::SyntheticOptions options;
  options.progress = bar.callback();
  options.cancel = cancel;
  const model::Config config = *model::builtin_config(flags.random);
  NIBBLE_RETURN_IF_ERROR(checkpoint::write_synthetic_checkpoint(flags.write, config, pool, options));
  if (flags.json) {
    print_json({{"written", flags.write.string()}, {"shape", flags.random}});
  } else {
    fmt::print("wrote a random BF16 {} to {}\n", flags.random, flags.write.string());
  }
  return 0;
}

void print_report(const gate::BenchReport& report, const std::string& what) {
  fmt::print("{}\n{}, {} threads, {} numerics\n", what, report.machine, report.threads, report.numeric);
  fmt::print("memory read probe {:.1f} GB/s; a token reads {} of weights\n\n", report.probe_gb_s,
             human_bytes(report.weight_bytes_per_token));
  std::vector<std::vector<std::string>> rows = {
      {"depth", "TTFT ms", "prefill tok/s", "decode tok/s", "decode GB/s", "% of probe"}};
  for (const gate::BenchPoint& p : report.points) {
    rows.push_back({std::to_string(p.depth), fmt::format("{:.1f}", p.ttft_ms), fmt::format("{:.1f}", p.prefill_tok_s),
                    fmt::format("{:.2f}", p.decode_tok_s), fmt::format("{:.2f}", p.decode_gb_s),
                    fmt::format("{:.1f}", p.decode_share * 100)});
  }
  fmt::print("{}", table(rows));
  for (const gate::BenchPoint& p : report.points) {
    print_ops(p.prompt_ops, fmt::format("prompt of {}", p.depth), report.probe_gb_s);
    print_ops(p.step_ops, fmt::format("a step after {} tokens", p.depth), report.probe_gb_s);
  }
}

Result<checkpoint::LoadedModel> open_weights(const Flags& flags, ThreadPool& pool, const CancelToken& cancel) {
  ProgressBar bar("load", true);
  if (flags.random.empty()) {
    checkpoint::LoadOptions options;
    options.pool = &pool;
    options.progress = bar.callback();
    options.cancel = cancel;
    return load_model(flags.dir, flags.adapter, options);
  }
  checkpoint::SyntheticOptions options;
  options.progress = bar.callback();
  options.cancel = cancel;
  const ops::WeightFormat format = flags.format == "nvfp4"  ? ops::WeightFormat::nvfp4
                                   : flags.format == "bf16" ? ops::WeightFormat::bf16
                                                            : ops::WeightFormat::f32;
  options.quantized_head = flags.head == "nvfp4";
  options.shapes_only = flags.project.wanted();
  return checkpoint::synthetic_model(*model::builtin_config(flags.random), format, pool, options);
}

Result<int> run(const Flags& flags) {
  if (flags.profile && (flags.endpoint.wanted() || flags.train.train || flags.project.wanted())) {
    return invalid_argument("bench: --profile measures inference here: no --endpoint, --http, --train or --project");
  }
  if (flags.endpoint.wanted()) {
    if (!flags.random.empty() || !flags.adapter.empty() || flags.train.train) {
      return invalid_argument("bench: --random, --adapter and --train do not go with a server");
    }
    EndpointBenchFlags endpoint = flags.endpoint;
    endpoint.server.model = flags.dir;
    endpoint.server.act = flags.act;
    endpoint.server.exact = flags.exact;
    return bench_endpoint(std::move(endpoint), flags.json);
  }
  const CancelToken cancel = interrupt_token();
  if (!flags.endpoint.output.empty() || flags.endpoint.quick) {
    return invalid_argument("bench: --output and --quick belong to --endpoint URL or DIR --http");
  }
  if (flags.random.empty() == flags.dir.empty()) {
    return invalid_argument("bench: expected a folder, --random SHAPE or --endpoint URL")
        .with_hint("nibble bench models/tiny-voice, or nibble bench --random 0.8b --format nvfp4");
  }
  if (!flags.adapter.empty() && !flags.random.empty()) {
    return invalid_argument("bench: --adapter belongs to a folder, and --random has none");
  }
  if (!flags.write.empty()) return write_random(flags, cancel);
  if (flags.train.train) {
    if (!flags.act.empty()) return invalid_argument("bench: --act belongs to inference, and --train trains");
    if (flags.dir.empty()) return invalid_argument("bench: --train belongs to a folder, and --random has none");
    TrainBenchFlags train = flags.train;
    train.options.repeats = flags.options.repeats;
    return bench_train(flags.dir, flags.adapter, train, flags.threads, flags.json);
  }

  if (flags.device.memory_limit > 0 && flags.device.device == "cpu") {
    return invalid_argument("bench: --memory-limit belongs to --device cuda");
  }
  ThreadPool pool(flags.threads);
  Context cx(pool, flags.exact ? Numeric::exact : Numeric::bf16_act);
  cx.cancel = cancel;
  NIBBLE_TRY(loaded, open_weights(flags, pool, cancel));
  NIBBLE_RETURN_IF_ERROR(set_activations(loaded, flags.act));
  const std::string source = flags.random.empty() ? flags.dir.string() : "random " + flags.random;
  const std::string what = source + ", " + loaded.format.text();
  if (flags.project.wanted()) {
    gate::ProjectionOptions options{.prompts = flags.device.options.prompts,
                                    .depths = flags.device.options.depths,
                                    .batches = flags.device.options.batches,
                                    .batch_depth = flags.device.options.batch_depth};
    return bench_project(flags.project, std::move(options), loaded, what, flags.json);
  }
  if (flags.device.device != "cpu") return bench_device(flags.device, loaded, what, pool, flags.json);
  ProgressBar bar("bench");
  NIBBLE_TRY(report, gate::bench(cx, loaded.weights, flags.options, bar.callback()));
  if (flags.json) {
    Json json = report.json();
    json["model"] = what;
    if (!loaded.adapter.empty()) json["adapter"] = loaded.adapter;
    json["activations"] = loaded.format.activations;
    json["version"] = kVersion;
    print_json(json);
  } else {
    print_report(report, what);
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("bench", "How fast a model reads and speaks, here or on any server");
  command->footer(
      "TTFT is the time to read the prompt and choose the first token. Decode is timed after a prompt of the given\n"
      "depth, so its attention really reads that much history. GB/s counts the bytes a step must move; the probe is\n"
      "what the same threads read from memory in the same run, the ceiling of any decoder.\n"
      "With --train, whole optimizer steps are timed: sft, qat and, with a teacher, qad. GFLOP/s counts the products\n"
      "with weights that a step executes, recomputed ones included, beside the fastest sgemm of 2048 x 2048 x 2048.\n"
      "With --endpoint, or DIR --http, times are those that a client of an OpenAI-compatible server sees: the first\n"
      "token by length of the prompt and over a conversation of 20 turns, decode, several clients at once\n"
      "(docs/gates.md, Speed).\n"
      "With --profile each op is timed by itself, kept apart from the next by a mark, whose own time is taken off.\n"
      "What the ops add up to and the pass as it runs differ by what overlaps in it, or by what it waits for.\n"
      "With --project nothing runs: bytes and instructions of a step over what a machine's memory and lanes give,\n"
      "times the share of that ceiling that was reached where it was measured (docs/cuda.md).\n\n"
      "  nibble bench models/tiny-voice --depths 128,1024\n"
      "  nibble bench models/tiny-voice --train --teacher models/tiny-voice\n"
      "  nibble bench --random 0.8b --format nvfp4\n"
      "  nibble bench --random 9b --format nvfp4 --head nvfp4 --device cuda\n"
      "  nibble bench --random 9b --format nvfp4 --head nvfp4 --project gb10\n"
      "  nibble bench --endpoint http://127.0.0.1:8000 --output runs/speed\n"
      "  nibble bench --random 9b --write big        a complete BF16 folder of that shape, written as a stream");
  command->add_option("DIR", flags->dir, "a checkpoint folder, or a GGUF file");
  add_adapter_flag(*command, flags->adapter);
  add_act_flag(*command, flags->act);
  command->add_option("--random", flags->random, "random weights of this exact shape instead: 0.8b, 2b, 4b, 9b, 27b")
      ->transform([](std::string shape) {
        for (char& c : shape) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        return shape;
      })
      ->check(CLI::IsMember({"0.8b", "2b", "4b", "9b", "27b"}));
  command->add_option("--format", flags->format, "format of the random weights")
      ->check(CLI::IsMember({"f32", "bf16", "nvfp4"}))
      ->capture_default_str();
  command->add_option("--head", flags->head, "format of the head beside nvfp4 weights")
      ->check(CLI::IsMember({"bf16", "nvfp4"}))
      ->capture_default_str();
  command->add_option("--write", flags->write, "write the random model to this new folder and stop")->needs("--random");
  const CLI::Option* depths =
      command->add_option("--depths", flags->options.depths, "prompt tokens before the timed tokens")
          ->delimiter(',')
          ->check(CLI::Range(1, 1 << 20))
          ->capture_default_str();
  const CLI::Option* decode =
      command->add_option("--decode", flags->options.decode_tokens, "tokens spoken at each depth")
          ->check(CLI::Range(1, 1 << 16))
          ->capture_default_str();
  const CLI::Option* repeats =
      command->add_option("--repeats", flags->options.repeats, "runs of each depth, or steps; the median counts")
          ->check(CLI::Range(1, 1000))
          ->capture_default_str();
  add_train_bench_flags(*command, flags->train);
  add_endpoint_bench_flags(*command, flags->endpoint);
  add_device_bench_flags(*command, flags->device);
  const CLI::Option* prompts = command->get_option("--prompts");
  add_project_bench_flags(*command, flags->project);
  command->add_flag("--profile", flags->profile,
                    "a table for every point: what each kind of op takes of a prompt and of a step");
  command->add_option("--threads", flags->threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--exact", flags->exact, "f32 activations, as eval and train use them");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([=, &action] {
    // A GPU has other defaults.
    gate::DeviceBenchOptions& device = flags->device.options;
    flags->device.prompts_asked = prompts->count() > 0;
    flags->device.depths_asked = depths->count() > 0;
    if (depths->count() > 0) device.depths = flags->options.depths;
    if (decode->count() > 0) device.decode_tokens = flags->options.decode_tokens;
    if (repeats->count() > 0) device.repeats = flags->options.repeats;
    flags->options.profile = device.profile = flags->profile;
    action = [flags] { return run(*flags); };
  });
}

}  // namespace nibble::cli

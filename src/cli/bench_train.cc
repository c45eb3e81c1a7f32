#include "cli/bench_train.h"

#include "base/machine.h"
#include "cli/terminal.h"
#include "cli/version.h"

namespace nibble::cli {
namespace {

struct Measured {
  std::string mode;
  gate::TrainBenchResult result;
};

Result<gate::TrainBenchResult> measure(Context& cx, const Path& dir, const Path& adapter, const TrainBenchFlags& flags,
                                       const std::string& mode, const model::Weights* teacher) {
  train::StudentOptions student_options;
  student_options.quantize = mode != "sft";
  student_options.trainable = mode == "qad" ? train::Trainable::linears : train::Trainable::all;
  gate::TrainBenchOptions options = flags.options;
  options.objective = mode == "qad" ? train::Objective::kl : train::Objective::ce;
  NIBBLE_TRY(model, load_model(dir, adapter));
  NIBBLE_TRY(student, train::Student::create(cx, dir, std::move(model), student_options));
  ProgressBar bar(mode);
  return gate::train_bench(cx, *student, mode == "qad" ? teacher : nullptr, options, bar.callback());
}

void print_results(const std::vector<Measured>& all, const Path& dir, const TrainBenchFlags& flags, int threads) {
  fmt::print("{}\n{}, {} threads; a step trains {} sequences of {} tokens\n\n", dir.string(), machine_name(), threads,
             flags.options.sequences, flags.options.length);
  std::vector<std::vector<std::string>> rows = {
      {"mode", "step ms", "tok/s", "GEMM GFLOP", "GFLOP/s", "sgemm GFLOP/s", "% of sgemm"}};
  for (const auto& [mode, r] : all) {
    rows.push_back({mode, fmt::format("{:.0f}", r.step_s * 1e3), fmt::format("{:.0f}", r.tok_s()),
                    fmt::format("{:.1f}", r.gemm_flop * 1e-9), fmt::format("{:.1f}", r.gflop_s()),
                    fmt::format("{:.1f} ({})", r.fastest_sgemm().gflop_s, r.fastest_sgemm().name),
                    fmt::format("{:.1f}", r.share() * 100)});
  }
  fmt::print("{}", table(rows));
}

}  // namespace

void add_train_bench_flags(CLI::App& command, TrainBenchFlags& flags) {
  CLI::Option* train = command.add_flag("--train", flags.train, "time training steps instead");
  command.add_option("--teacher", flags.teacher, "folder of a teacher: --train measures qad, too")->needs(train);
  command.add_option("--batch", flags.options.sequences, "sequences of a training step")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str()
      ->needs(train);
  command.add_option("--length", flags.options.length, "tokens of each")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str()
      ->needs(train);
  command
      .add_flag("!--recompute", flags.options.loss.keep_traces,
                "compute intermediates again, as nibble train does where memory is short")
      ->needs(train);
}

Result<int> bench_train(const Path& dir, const Path& adapter, const TrainBenchFlags& flags, int threads, bool json) {
  ThreadPool pool(threads);
  Context cx(pool, Numeric::exact);
  cx.cancel = interrupt_token();
  std::vector<std::string> modes = {"sft", "qat"};
  std::optional<checkpoint::LoadedModel> teacher;
  if (!flags.teacher.empty()) {
    NIBBLE_TRY(loaded, checkpoint::load_checkpoint(flags.teacher, {}));
    teacher = std::move(loaded);
    modes.emplace_back("qad");
  }
  std::vector<Measured> all;
  for (const std::string& mode : modes) {
    NIBBLE_TRY(result, measure(cx, dir, adapter, flags, mode, teacher ? &teacher->weights : nullptr));
    all.push_back({mode, result});
  }
  if (!json) {
    print_results(all, dir, flags, pool.threads());
    return 0;
  }
  Json out = {{"model", dir.string()},
              {"machine", machine_name()},
              {"threads", pool.threads()},
              {"sequences", flags.options.sequences},
              {"length", flags.options.length},
              {"modes", Json::object()},
              {"version", kVersion}};
  for (const auto& [mode, result] : all) out["modes"][mode] = result.json();
  print_json(out);
  return 0;
}

}  // namespace nibble::cli

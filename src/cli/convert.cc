#include "checkpoint/convert_layout.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path input, output;
  std::string format;
  int threads = 0;
  bool json = false;
};

Result<int> to_layout(const Flags& flags, ThreadPool& pool) {
  checkpoint::ConvertOptions options;
  options.pool = &pool;
  options.cancel = interrupt_token();
  ProgressBar bar("convert", true);
  options.progress = bar.callback();
  NIBBLE_TRY(made, checkpoint::convert_layout(flags.input, flags.output, *checkpoint::target_layout_named(flags.format),
                                              options));
  if (flags.json) {
    print_json({{"output", flags.output.string()},
                {"format", flags.format},
                {"algo", made.algo},
                {"linears", made.linears},
                {"bytes", made.bytes},
                {"notes", made.notes}});
    return 0;
  }
  fmt::print("{}: {} linears, {}{}\n", flags.output.string(), made.linears, human_bytes(made.bytes),
             made.algo.empty() ? " in BF16" : ", " + made.algo);
  for (const std::string& note : made.notes) fmt::print("note: {}\n", note);
  return 0;
}

Result<int> run(const Flags& flags) {
  ThreadPool pool(flags.threads);
  return to_layout(flags, pool);
}

}  // namespace

void add_convert(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("convert", "A quantized checkpoint folder in another layout, or in BF16");
  command->footer(
      "Codes and block scales stay as they are between the quantized layouts; bf16 holds what they mean, rounded.\n"
      "The input is not changed.\n\n"
      "  nibble convert OUT --format compressed-tensors --output OUT-CT");
  command->add_option("INPUT", flags->input, "a quantized checkpoint folder")->required();
  command->add_option("--format", flags->format, "modelopt, compressed-tensors or bf16")
      ->required()
      ->check(CLI::IsMember({"modelopt", "compressed-tensors", "bf16"}));
  command->add_option("--output", flags->output, "the new folder")->required();
  command->add_option("--threads", flags->threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

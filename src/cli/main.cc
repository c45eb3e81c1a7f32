// nibble: one binary, one subcommand per thing a user does.
#include <cstdio>

#include "base/log.h"
#include "cli/command.h"
#include "cli/version.h"

int main(int argc, char** argv) {
  using namespace nibble;
  init_log();
  CLI::App app(
      "nibble takes a fine-tuned Qwen3.5 model from BF16 to NVFP4, serves it and proves that it still behaves.\n\n"
      "  nibble inspect DIR                         what is in a checkpoint\n"
      "  nibble doctor DIR                          what would fail in which server, and the fix\n"
      "  nibble quantize DIR --output OUT           BF16 -> NVFP4, in the layout that vLLM and SGLang load\n"
      "  nibble eval DIR OUT --data chat.jsonl      how far apart their predictions are\n"
      "  nibble serve OUT                           an OpenAI-compatible API on 127.0.0.1:8080\n");
  app.set_version_flag("--version", std::string("nibble ") + kVersion);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);

  cli::Action action;
  cli::add_inspect(app, action);
  cli::add_doctor(app, action);
  cli::add_quantize(app, action);
  cli::add_convert(app, action);
  cli::add_chat(app, action);
  cli::add_converse(app, action);
  cli::add_runs(app, action);
  cli::add_serve(app, action);
  cli::add_train(app, action);
  cli::add_eval(app, action);
  cli::add_bench(app, action);
  cli::add_gate(app, action);
  cli::add_card(app, action);
  cli::add_data(app, action);
  cli::add_generate(app, action);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const Result<int> exit_code = action();
  if (exit_code.ok()) return *exit_code;
  fmt::print(stderr, "{}\n", exit_code.status().text());
  return exit_code.status().code() == Code::cancelled ? 130 : 2;
}

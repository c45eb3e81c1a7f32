#include "cli/command.h"
#include "cli/terminal.h"
#include "engine/local_engine.h"
#include "gate/runner.h"
#include "serve/server.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path model, api_key_file;
  gate::GateOptions gate;
  std::string act, thinking = "off";
  bool exact = false, json = false;
};

// The model behind its own API on a loopback port: a case takes the way that a user's request takes.
struct LocalServer {
  std::unique_ptr<serve::Server> server;
  std::string url, activations;
};

Result<LocalServer> serve_model(const Flags& flags) {
  NIBBLE_TRY(open, open_model(flags.model, {}, flags.act));
  NIBBLE_TRY(engine, engine::start_engine(open.model, open.tokenizer,
                                          {.numeric = flags.exact ? Numeric::exact : Numeric::bf16_act}));
  serve::ServeOptions options;
  options.port = 0;
  options.model_id = folder_name(flags.model);
  LocalServer local;
  NIBBLE_TRY(server, serve::Server::start(options, engine, open.tokenizer, open.chat_template));
  local.server = std::move(server);
  local.activations = open.model->format.activations;
  local.url = fmt::format("http://127.0.0.1:{}", local.server->port());
  return local;
}

Result<int> run(Flags flags) {
  if (flags.model.empty() == flags.gate.endpoint.url.empty()) {
    return invalid_argument("gate: expected either --model DIR or --endpoint URL");
  }
  if (!flags.act.empty() && flags.model.empty()) {
    return invalid_argument("gate: --act belongs to --model; a served model has what its server was started with");
  }
  flags.gate.endpoint.cancel = interrupt_token();
  flags.gate.endpoint.thinking =
      flags.thinking == "default" ? std::nullopt : std::optional<bool>(flags.thinking == "on");
  if (!flags.api_key_file.empty()) {
    NIBBLE_TRY(key, serve::read_api_key(flags.api_key_file));
    flags.gate.endpoint.api_key = key;
  }
  LocalServer local;
  if (!flags.model.empty()) {
    NIBBLE_TRY(started, serve_model(flags));
    local = std::move(started);
    flags.gate.endpoint.url = local.url;
  }
  ProgressBar bar("gate");
  NIBBLE_TRY(report, gate::run_gate(flags.gate, bar.callback()));
  report.activations = local.activations;
  if (flags.json) {
    print_json(gate::to_json(report));
  } else {
    fmt::print("{}", gate::to_text(report));
  }
  return 0;
}

}  // namespace

void add_gate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("gate", "Play behaviour cases against a model or any OpenAI-compatible server");
  command->footer(
      "Every case is a short conversation: the user's turns, which tool must be called with which words, the results\n"
      "that are fed back, and what the answer must say. A case passes when all its turns do. Manners are counted "
      "apart:\n"
      "thinking aloud, markdown, asking for leave.\n\n"
      "  nibble gate --model models/tiny-voice --cases cases.jsonl\n"
      "  nibble gate --endpoint http://127.0.0.1:8000 --cases cases.jsonl --json");
  command->add_option("--model", flags->model, "a checkpoint folder, served on loopback for the run");
  add_act_flag(*command, flags->act, "--model");
  command->add_option("--endpoint", flags->gate.endpoint.url, "base URL of a running server");
  command->add_option("--endpoint-model", flags->gate.endpoint.model,
                      "model id to ask for (default: the first listed)");
  command->add_option("--api-key-file", flags->api_key_file, "file with the server's key");
  command->add_option("--cases", flags->gate.cases, "cases as JSONL")->required();
  command->add_option("--limit", flags->gate.limit, "play the first N cases (0 = all)")->check(CLI::NonNegativeNumber);
  command->add_option("--sample", flags->gate.sample, "play N of them, every category with its share (0 = all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-tokens", flags->gate.endpoint.max_tokens, "longest reply")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--thinking", flags->thinking, "enable_thinking: on, off, or default (leave it out)")
      ->check(CLI::IsMember({"on", "off", "default"}))
      ->capture_default_str();
  command->add_option("--jobs", flags->gate.jobs, "cases in flight")->check(CLI::Range(1, 256))->capture_default_str();
  command->add_flag("--exact", flags->exact, "with --model: f32 activations");
  command->add_flag("--json", flags->json, "print one JSON document");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

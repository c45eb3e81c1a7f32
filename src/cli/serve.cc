#include "serve/server.h"

#include <cstdio>
#include <thread>

#include "cli/command.h"
#include "cli/memory_flags.h"
#include "cli/terminal.h"
#include "engine/local_engine.h"
#include "engine/replay_engine.h"
#include "model/batch_runner.h"
#include "serve/replay_server.h"
#include "tensor/device.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir, adapter, api_key_file;
  serve::ServeOptions serve;
  engine::EngineOptions engine;
  std::string device = "cpu", act, thinking, tool_parser = "auto", reasoning_field = "reasoning_content", replay;
  double shutdown_timeout_s = 30;
  bool exact = false, json = false;
};

constexpr std::string_view kReplay = "replay:";

// What a server needs, and what is said of it when it starts.
struct Served {
  std::shared_ptr<engine::Engine> engine;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::shared_ptr<const text::ChatTemplate> chat_template;
  std::string words;
  Json fields;
};

Result<Served> open_weights(const Flags& flags) {
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter, flags.act));
  NIBBLE_TRY(plan, engine::plan_memory(*open.model, flags.engine));
  if (!flags.json) print_plan(plan);
  NIBBLE_TRY(engine, engine::start_engine(open.model, open.tokenizer, flags.engine));
  const checkpoint::LoadedModel& model = *open.model;
  Served served{engine, open.tokenizer, open.chat_template, "", {}};
  served.fields = {
      {"format", model.format.format}, {"activations", model.format.activations}, {"memory", plan_json(plan)}};
  if (!model.adapter.empty()) served.fields["adapter"] = model.adapter;
  const std::string merged = model.adapter.empty() ? "" : " with adapter " + model.adapter + " merged";
  served.words =
      fmt::format("{}{}, {} of weights a token, context {} tokens, {} of memory", model.format.text(), merged,
                  human_bytes(model.format.bytes_per_token), engine->info().context, human_bytes(plan.total()));
  return served;
}

Result<Served> open_script(const Flags& flags) {
  const std::string file = flags.replay.substr(kReplay.size());
  NIBBLE_TRY(script, engine::read_replay(file));
  engine::ReplayOptions options;
  if (flags.engine.context > 0) options.context = flags.engine.context;
  const size_t entries = script.entries.size();
  NIBBLE_TRY(model, engine::open_replay(std::move(script), flags.dir, options));
  Served served{model.engine, model.tokenizer, model.chat_template, "", {}};
  served.fields = {{"format", "replay"}, {"entries", entries}};
  served.words = fmt::format("{} replies from {}, context {} tokens", entries, file, model.engine->info().context);
  return served;
}

Result<int> run(Flags flags) {
  const CancelToken interrupted = interrupt_token();
  if (!flags.api_key_file.empty()) {
    NIBBLE_TRY(key, serve::read_api_key(flags.api_key_file));
    flags.serve.api_key = key;
  }
  if (!flags.thinking.empty()) flags.serve.thinking = *serve::thinking_named(flags.thinking);
  flags.serve.dialect = *text::dialect_named(flags.tool_parser);
  flags.serve.reasoning_field = *serve::reasoning_field_named(flags.reasoning_field);
  NIBBLE_TRY(device, parse_device(flags.device));
  flags.engine.device = device;
  flags.engine.numeric = flags.exact ? Numeric::exact : Numeric::bf16_act;
  const bool replay = !flags.replay.empty();
  NIBBLE_TRY(served, replay ? open_script(flags) : open_weights(flags));
  if (!flags.dir.empty()) flags.serve.prompt_lock = prompt_lock_of(flags.dir);
  if (flags.serve.model_id.empty()) flags.serve.model_id = replay ? serve::kReplayModelId : folder_name(flags.dir);
  NIBBLE_TRY(server, serve::Server::start(flags.serve, served.engine, served.tokenizer, served.chat_template));

  const std::string url = fmt::format("http://{}:{}", flags.serve.host, server->port());
  if (flags.json) {
    Json json = {{"url", url}, {"model", flags.serve.model_id}, {"context", served.engine->info().context}};
    json.update(served.fields);
    print_json(json);
  } else {
    fmt::print("listening on {}\n", url);
    fmt::print("model {}, {}\n", flags.serve.model_id, served.words);
  }
  std::fflush(stdout);
  while (!interrupted.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server->stop(flags.shutdown_timeout_s);
  return 0;
}

// --engine replay:FILE; there is no model then, so what is said about one is a mistake.
void add_engine_flag(CLI::App& command, std::string& replay) {
  const auto check = [](const std::string& word) {
    return word.starts_with(kReplay) && word.size() > kReplay.size() ? "" : "expected replay:FILE, got " + word;
  };
  CLI::Option* engine = command.add_option("--engine", replay,
                                           "replay:FILE: no model, but the replies of a script (docs/replay.md); "
                                           "DIR may then be left out");
  engine->check(CLI::Validator(check, "replay:FILE"));
  for (const char* flag :
       {"--adapter", "--act", "--device", "--exact", "--slots", "--threads", "--max-queue", "--memory-limit"}) {
    engine->excludes(command.get_option(flag));
  }
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  flags->serve.model_id.clear();  // until it is known what is served
  CLI::App* command = app.add_subcommand("serve", "Serve a model behind an OpenAI-compatible API");
  command->footer(
      "Routes: /v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize, /apply-template, /v1/parse,\n"
      "/health. Ctrl-C stops accepting, lets running replies finish, and exits; a second Ctrl-C ends at once.\n\n"
      "  nibble serve models/tiny-voice\n"
      "  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of India?\"}]}'\n"
      "  nibble serve --engine replay:FILE          what FILE says, for tests of a client");
  command->add_option("DIR", flags->dir, "a checkpoint folder, or a GGUF file");
  add_adapter_flag(*command, flags->adapter);
  add_act_flag(*command, flags->act);
  command->add_option("--host", flags->serve.host, "address to bind; other than loopback needs a key")
      ->capture_default_str();
  command->add_option("--port", flags->serve.port, "port to bind (0 = any free one)")->capture_default_str();
  command->add_option("--api-key-file", flags->api_key_file, "file with the key that clients must send");
  command->add_flag("--insecure", flags->serve.insecure, "bind a non-loopback address without a key");
  command->add_option("--name", flags->serve.model_id, "the id that clients use (default: the folder's name)");
  command->add_option("--alias", flags->serve.aliases, "further ids of the same model");
  command->add_flag("--any-model", flags->serve.any_model, "serve requests whatever model they name");
  command->add_option("--allowed-hosts", flags->serve.allowed_hosts, "further values of the Host header");
  command
      ->add_option("--thinking", flags->thinking,
                   "think before answering: on, off, auto (as the template says); default: as trained, else auto")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  command->add_option("--tool-parser", flags->tool_parser, "dialect of tool calls")
      ->check(CLI::IsMember({"auto", "hermes", "qwen3_xml", "none"}))
      ->capture_default_str();
  command->add_option("--reasoning-field", flags->reasoning_field, "what replies call the thinking")
      ->check(CLI::IsMember({"reasoning_content", "reasoning", "both"}))
      ->capture_default_str();
  command->add_flag("--strict-template", flags->serve.strict_template, "messages go to the template as they are");
  command->add_flag("--tools-verbatim", flags->serve.tools_verbatim, "keep `strict` and titles in the tools shown");
  command->add_flag("--allow-control-text", flags->serve.allow_control_text, "control tokens typed by users count");
  command->add_option("--context", flags->engine.context, "tokens of prompt and reply (0 = up to 8192)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--slots", flags->engine.slots, "replies that are written at once, each with its own context")
      ->check(CLI::Range(int64_t{1}, model::kMostSlots))
      ->capture_default_str();
  add_memory_limit_flag(*command, flags->engine.memory_limit);
  command->add_option("--max-queue", flags->engine.max_queue, "requests that may wait")->capture_default_str();
  command->add_option("--shutdown-timeout", flags->shutdown_timeout_s, "seconds that running replies get at the end")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  command->add_option("--threads", flags->engine.threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--exact", flags->exact, "f32 activations, as eval and train use them");
  command->add_flag("--json", flags->json, "announce the address as JSON");
  add_engine_flag(*command, flags->replay);
  command->callback([flags, &action] {
    if (flags->dir.empty() && flags->replay.empty()) throw CLI::RequiredError("DIR");
    action = [flags] { return run(*flags); };
  });
}

}  // namespace nibble::cli

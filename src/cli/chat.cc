#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <iostream>
#include <mutex>

#include "base/log.h"
#include "cli/command.h"
#include "cli/memory_flags.h"
#include "cli/terminal.h"
#include "engine/local_engine.h"
#include "tensor/device.h"
#include "text/chat_encode.h"
#include "text/chat_normalise.h"
#include "text/chat_parser.h"

namespace nibble::cli {
namespace {

struct Flags {
  Path dir, adapter;
  std::string device = "cpu", act, system, message;
  float temperature = -1;  // < 0: the model's own
  int64_t max_tokens = 1024;
  engine::EngineOptions engine;
  std::optional<bool> think;  // absent: as trained, else off
  bool exact = false, json = false;
};

// Events arrive on the engine's thread; the terminal is written on this one.
class EventQueue {
 public:
  void push(engine::Event event) {
    {
      std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
    }
    ready_.notify_one();
  }
  engine::Event pop() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !events_.empty(); });
    engine::Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<engine::Event> events_;
};

struct Reply {
  text::ParsedMessage message;
  engine::Usage usage;
  engine::Finish finish = engine::Finish::stop;
};

class Chat {
 public:
  Chat(const Flags& flags, OpenModel open, std::shared_ptr<engine::Engine> engine)
      : flags_(flags),
        open_(std::move(open)),
        engine_(std::move(engine)),
        interrupted_(interrupt_token()),
        watch_(prompt_lock_of(flags.dir), open_.chat_template.get()) {
    if (const auto difference = watch_.at_load()) spdlog::warn("chat: {}", *difference);
    if (!flags.system.empty()) messages_.push_back({{"role", "system"}, {"content", flags.system}});
  }

  /// One turn; the user's text and the reply join the history.
  Result<Reply> say(const std::string& text, bool print) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    NIBBLE_TRY(messages, text::normalise_messages(messages_, *open_.chat_template));
    text::RenderOptions render;
    render.kwargs["enable_thinking"] = think();
    for (const std::string& difference : watch_.differences(messages, Json(), think())) {
      spdlog::warn("chat: {}", difference);
    }
    NIBBLE_TRY(rendered, open_.chat_template->render(messages, Json(), render));
    engine::Request request;
    NIBBLE_RETURN_IF_ERROR(text::encode_rendered(*open_.tokenizer, rendered, false, request.prompt));
    request.sampling = engine_->info().default_sampling;
    if (flags_.temperature >= 0) request.sampling.temperature = flags_.temperature;
    request.max_tokens = flags_.max_tokens;
    request.cancel = interrupted_;

    text::ParserOptions options;
    options.reasoning_open = text::reasoning_open(rendered.text);
    text::ChatParser parser(options);
    auto events = std::make_shared<EventQueue>();  // outlives this call if the engine is late with its last event
    NIBBLE_RETURN_IF_ERROR(
        engine_->submit(std::move(request), [events](engine::Event event) { events->push(std::move(event)); }));
    NIBBLE_TRY(reply, collect(*events, parser, print));
    messages_.push_back({{"role", "assistant"}, {"content", reply.message.content}});
    return reply;
  }

 private:
  bool think() const {
    if (flags_.think) return *flags_.think;
    return watch_.lock() && watch_.lock()->thinking.value_or(false);
  }

  Result<Reply> collect(EventQueue& events, text::ChatParser& parser, bool print) {
    Reply reply;
    text::MessageBuilder builder;
    std::vector<text::ParseEvent> parsed;
    while (true) {
      engine::Event event = events.pop();
      parsed.clear();
      if (!event.text.empty()) parser.feed(event.text, parsed);
      if (event.finish) parser.finish(*event.finish == engine::Finish::length, parsed);
      for (const text::ParseEvent& item : parsed) {
        builder.add(item);
        if (print) show(item);
      }
      if (!event.finish) continue;
      if (*event.finish == engine::Finish::error) return event.error;
      if (*event.finish == engine::Finish::cancelled) return cancelled("chat: stopped");
      reply.message = builder.message();
      reply.usage = event.usage;
      reply.finish = *event.finish;
      return reply;
    }
  }

  static void show(const text::ParseEvent& item) {
    const bool colour = ::isatty(STDOUT_FILENO) != 0;
    if (item.kind == text::ParseEvent::reasoning && colour) {
      fmt::print("\033[2m{}\033[0m", item.text);
    } else {
      fmt::print("{}", item.text);
    }
    std::fflush(stdout);
  }

  const Flags& flags_;
  OpenModel open_;
  std::shared_ptr<engine::Engine> engine_;
  CancelToken interrupted_;
  text::PromptWatch watch_;
  Json messages_ = Json::array();
};

std::string speed_line(const engine::Usage& u) {
  return fmt::format("{} tokens read in {:.0f} ms, {} spoken at {:.1f} tok/s", u.prompt_tokens, u.prefill_ms,
                     u.completion_tokens, static_cast<double>(u.completion_tokens) * 1e3 / std::max(u.decode_ms, 1e-3));
}

Result<int> run(Flags flags) {
  NIBBLE_TRY(open, open_model(flags.dir, flags.adapter, flags.act));
  NIBBLE_TRY(device, parse_device(flags.device));
  flags.engine.device = device;
  flags.engine.numeric = flags.exact ? Numeric::exact : Numeric::bf16_act;
  NIBBLE_TRY(plan, engine::plan_memory(*open.model, flags.engine));
  if ((device.is_cuda() || flags.engine.memory_limit > 0) && !flags.json) print_plan(plan);
  NIBBLE_TRY(engine, engine::start_engine(open.model, open.tokenizer, flags.engine));
  const checkpoint::FormatSummary format = open.model->format;
  Chat chat(flags, std::move(open), std::move(engine));
  if (!flags.message.empty()) {
    NIBBLE_TRY(reply, chat.say(flags.message, !flags.json));
    if (flags.json) {
      print_json({{"content", reply.message.content},
                  {"reasoning_content", reply.message.reasoning},
                  {"activations", format.activations},
                  {"finish_reason", reply.finish == engine::Finish::length ? "length" : "stop"},
                  {"prompt_tokens", reply.usage.prompt_tokens},
                  {"completion_tokens", reply.usage.completion_tokens},
                  {"prefill_ms", reply.usage.prefill_ms},
                  {"decode_ms", reply.usage.decode_ms},
                  {"memory", plan_json(plan)}});
    } else {
      fmt::print("\n");
    }
    return 0;
  }
  if (flags.json) return invalid_argument("chat: --json needs --message");
  const bool person = ::isatty(STDIN_FILENO) != 0;
  if (person) fmt::print("{}: {}\n", folder_name(flags.dir), format.text());
  if (person) fmt::print("Type a message; an empty line or Ctrl-D ends the conversation.\n");
  while (true) {
    if (person) fmt::print("\n> ");
    std::fflush(stdout);
    std::string line;
    if (!std::getline(std::cin, line) || line.empty()) return 0;
    NIBBLE_TRY(reply, chat.say(line, true));
    fmt::print("\n");
    if (person) fmt::print("  [{}]\n", speed_line(reply.usage));
  }
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to a model in the terminal");
  command->footer(
      "Reads one message a line and streams the replies. What the model thinks is shown dimmed.\n\n"
      "  nibble chat models/tiny-voice --system 'You are Annie, a voice companion.'\n"
      "  nibble chat models/tiny-voice --message 'What is the capital of India?' --json");
  command->add_option("DIR", flags->dir, "a checkpoint folder, or a GGUF file")->required();
  add_adapter_flag(*command, flags->adapter);
  add_act_flag(*command, flags->act);
  command->add_option("--system", flags->system, "system prompt");
  command->add_option("--message", flags->message, "say this one message, print the reply and stop");
  command->add_option("--temperature", flags->temperature, "0 = always the likeliest token (default: the model's own)")
      ->check(CLI::Range(0.0, 2.0));
  command->add_option("--max-tokens", flags->max_tokens, "longest reply")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--context", flags->engine.context, "tokens of conversation (0 = up to 8192)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")->capture_default_str();
  add_memory_limit_flag(*command, flags->engine.memory_limit);
  command->add_option("--threads", flags->engine.threads, "CPU threads (0 = one per core)")->check(CLI::Range(0, 1024));
  command->add_flag("--think,!--no-think", flags->think,
                    "let the model think first, or not (default: as trained, else not)");
  command->add_flag("--exact", flags->exact, "f32 activations, as eval and train use them");
  command->add_flag("--json", flags->json, "with --message: print the reply as JSON");
  command->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace nibble::cli

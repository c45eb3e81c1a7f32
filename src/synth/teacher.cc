#include "synth/teacher.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "gate/chat_endpoint.h"
#include "gate/chat_stream.h"
#include "synth/fill.h"
#include "synth/recipe.h"
#include "synth/record_check.h"

namespace nibble::synth {
namespace {

constexpr int kTemporaryFailure = 75;  // EX_TEMPFAIL of sysexits.h: try again later
constexpr const char* kAssistantPrompt = "prompts/assistant.txt";

int64_t tokens_of(const gate::Reply& reply) {
  int64_t tokens = estimated_tokens(reply.content) + estimated_tokens(reply.reasoning);
  for (const gate::ToolCall& call : reply.calls)
    tokens += estimated_tokens(call.name) + estimated_tokens(call.arguments);
  return tokens;
}

bool is_prompt(const Question& question) {
  return question.messages.size() == 1 && question.tools.empty() && question.messages[0]["role"] == "user";
}

class UrlTeacher : public Teacher {
 public:
  explicit UrlTeacher(const TeacherOptions& options) : endpoint_(endpoint_options(options)) {}

  Attempt ask(const Question& question) override {
    gate::ChatRequest request;
    request.messages = question.messages;
    request.tools = question.tools;
    request.params = question.params;
    request.params["seed"] = question.seed;
    // Some servers know only the newer name; a recipe says so by using it.
    const char* limit = question.params.contains("max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    request.params[limit] = question.max_tokens;
    const Stopwatch watch;
    auto reply = endpoint_.complete(request);
    Attempt attempt;
    const gate::LastResponse& last = endpoint_.last_response();
    attempt.overloaded = last.status == 429 || last.status == 503;
    attempt.retry_after_s = last.retry_after_s;
    if (!reply.ok()) {
      attempt.status = reply.status();
      return attempt;
    }
    attempt.answer.ms = watch.ms();
    attempt.answer.finish = reply->finish;
    const auto counted = [](int64_t count, int64_t estimate) { return count >= 0 ? count : estimate; };
    attempt.answer.prompt_tokens =
        counted(reply->usage.prompt_tokens, estimated_tokens(question.messages, question.tools));
    attempt.answer.completion_tokens = counted(reply->usage.completion_tokens, tokens_of(reply->reply));
    attempt.answer.reply = std::move(reply->reply);
    return attempt;
  }

 private:
  static gate::EndpointOptions endpoint_options(const TeacherOptions& options) {
    gate::EndpointOptions endpoint;
    endpoint.url = options.url;
    endpoint.api_key = options.api_key;
    endpoint.model = options.model;
    endpoint.first_token_s = options.first_token_s;
    endpoint.idle_s = options.idle_s;
    endpoint.reply_s = options.answer_s;
    endpoint.retries = 0;  // whoever asks knows of all requests and decides
    endpoint.cancel = options.cancel;
    return endpoint;
  }

  gate::ChatEndpoint endpoint_;
};

class CommandTeacher : public Teacher {
 public:
  explicit CommandTeacher(TeacherOptions options) : options_(std::move(options)) {}

  Attempt ask(const Question& question) override {
    Attempt attempt;
    const auto prompt = command_prompt(question);
    if (!prompt.ok()) return failed(prompt.status());
    const Stopwatch watch;
    auto result = run_subprocess({"/bin/sh", "-c", options_.command}, *prompt,
                                 {.timeout_s = options_.answer_s, .cancel = options_.cancel});
    if (!result.ok()) return failed(result.status());
    if (result->exit_code != 0) {
      const std::string said = result->err.substr(0, std::min<size_t>(result->err.find('\n'), 200));
      attempt.overloaded = result->exit_code == kTemporaryFailure;
      attempt.status = unavailable("teacher command: expected exit code 0, got {}: {}", result->exit_code, said);
      return attempt;
    }
    attempt.answer.reply = read_command_answer(question, result->out);
    attempt.answer.finish = "stop";
    attempt.answer.prompt_tokens = estimated_tokens(*prompt);
    attempt.answer.completion_tokens = estimated_tokens(result->out);
    attempt.answer.ms = watch.ms();
    return attempt;
  }

 private:
  static Attempt failed(const Status& status) {
    Attempt attempt;
    attempt.status = status;
    return attempt;
  }

  TeacherOptions options_;
};

// The whole text as one JSON object, or nothing; a code fence around it does not count.
Json object_of(const std::string& text) {
  const size_t open = text.find('{'), close = text.rfind('}');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  const std::string before = text.substr(0, open);
  if (before.find_first_not_of(" \t\r\n`json") != std::string::npos) return {};
  const auto json = parse_json(std::string_view(text).substr(open, close - open + 1), "answer");
  return json.ok() && json->is_object() ? *json : Json();
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

}  // namespace

Result<MakeTeacher> teacher_of(const TeacherOptions& options) {
  if (options.url.empty() == options.command.empty()) {
    return invalid_argument("teacher: expected either a URL or a command");
  }
  if (options.url.empty()) return MakeTeacher([options] { return std::make_unique<CommandTeacher>(options); });
  return MakeTeacher([options] { return std::make_unique<UrlTeacher>(options); });
}

Result<std::string> command_prompt(const Question& question) {
  if (is_prompt(question)) return question.messages[0]["content"].get<std::string>();
  for (const EmbeddedFile& file : recipe_files()) {
    if (file.path != kAssistantPrompt) continue;
    std::string conversation;
    for (const Json& message : question.messages) conversation += gate::dump(message) + "\n";
    return fill(file.text, {{"tools", gate::dump(question.tools)}, {"conversation", conversation}});
  }
  return not_found("{}: expected a prompt in the binary, got none", kAssistantPrompt);
}

gate::Reply read_command_answer(const Question& question, const std::string& text) {
  gate::Reply reply;
  const Json json = is_prompt(question) ? Json() : object_of(text);
  const Json *content = json.is_object() ? find_value(json, "content") : nullptr,
             *calls = json.is_object() ? find_value(json, "tool_calls") : nullptr;
  if (content == nullptr && calls == nullptr) {
    reply.content = is_prompt(question) ? text : trimmed(text);
    return reply;
  }
  if (content != nullptr && content->is_string()) reply.content = content->get<std::string>();
  if (calls == nullptr || !calls->is_array()) return reply;
  for (const Json& call : *calls) {
    const Json& function = call.is_object() && call.contains("function") ? call["function"] : call;
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) continue;
    const Json arguments = function.contains("arguments") ? function["arguments"] : Json::object();
    reply.calls.push_back({fmt::format("call_{}", reply.calls.size() + 1), function["name"].get<std::string>(),
                           arguments.is_string() ? arguments.get<std::string>() : gate::dump(arguments)});
  }
  return reply;
}

}  // namespace nibble::synth

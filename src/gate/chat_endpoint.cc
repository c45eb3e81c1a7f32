#include "gate/chat_endpoint.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>

#include "base/clock.h"

namespace nibble::gate {
namespace {

constexpr double kMaxBackoff_s = 8;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The member of an object, or null where there is none.
const Json& member(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() ? *found : null;
}

std::string text_or_empty(const Json& json) {
  return json.is_string() ? json.get<std::string>() : std::string();
}

Result<ToolCall> parse_call(const Json& json) {
  const Json& function = member(json, "function");
  const Json& name = member(function, "name");
  const Json& arguments = member(function, "arguments");
  if (!name.is_string()) return corrupt("chat reply: tool_calls: expected function.name, got {}", name.type_name());
  return ToolCall{.id = text_or_empty(member(json, "id")),
                  .name = name.get<std::string>(),
                  .arguments = arguments.is_string() ? arguments.get<std::string>() : dump(arguments)};
}

// The API root without a trailing slash or /v1.
std::string root_of(std::string url) {
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (url.size() >= 3 && url.compare(url.size() - 3, 3, "/v1") == 0) url.resize(url.size() - 3);
  return url;
}

bool worth_repeating(int status) {
  return status == 408 || status == 429 || status >= 500;
}

// The server's own words, or the start of a body that is not the API's error.
std::string error_text(const std::string& body) {
  const auto json = parse_json(body, "error");
  if (json.ok()) {
    const Json& message = member(member(*json, "error"), "message");
    if (message.is_string()) return message.get<std::string>();
  }
  return body.substr(0, 200);
}

Status status_error(const std::string& path, const net::HttpResponse& response) {
  const Code code = worth_repeating(response.status) ? Code::unavailable : Code::invalid_argument;
  return fail(code, "{}: expected status 200, got {}: {}", path, response.status, error_text(response.body));
}

double retry_after_s(const net::HttpResponse& response, double otherwise) {
  const std::string* text = response.header("retry-after");
  int seconds = 0;
  if (text == nullptr) return otherwise;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  return error == std::errc() && seconds >= 0 ? seconds : otherwise;
}

}  // namespace

Result<Reply> parse_reply(std::string_view body) {
  NIBBLE_TRY(json, parse_json(body, "chat reply"));
  const Json& choices = member(json, "choices");
  if (!choices.is_array() || choices.empty() || !member(choices[0], "message").is_object()) {
    return corrupt("chat reply: expected choices[0].message, got {}", body.substr(0, 200));
  }
  const Json& message = member(choices[0], "message");
  const Json& content = member(message, "content");
  if (!content.is_string() && !content.is_null()) {
    return corrupt("chat reply: expected content to be a string, got {}", content.type_name());
  }
  Reply reply;
  reply.content = text_or_empty(content);
  reply.reasoning = text_or_empty(member(message, "reasoning_content"));
  if (reply.reasoning.empty()) reply.reasoning = text_or_empty(member(message, "reasoning"));
  for (const Json& call_json : member(message, "tool_calls")) {
    NIBBLE_TRY(call, parse_call(call_json));
    reply.calls.push_back(std::move(call));
  }
  return reply;
}

Json assistant_message(const Reply& reply) {
  Json message = {{"role", "assistant"}, {"content", reply.content}};
  if (!reply.reasoning.empty()) message["reasoning_content"] = reply.reasoning;
  for (const ToolCall& call : reply.calls) {
    message["tool_calls"].push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  return message;
}

Json tool_message(const ToolCall& call, const std::string& result) {
  return {{"role", "tool"}, {"tool_call_id", call.id}, {"content", result}};
}

ChatEndpoint::ChatEndpoint(EndpointOptions options) : options_(std::move(options)) {
  options_.url = root_of(std::move(options_.url));
}

Status ChatEndpoint::wait(double seconds) const {
  for (const Stopwatch watch; watch.seconds() < seconds;) {
    if (options_.cancel.cancelled()) return cancelled("{}: cancelled", options_.url);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {};
}

Result<std::string> ChatEndpoint::send(const std::string& path, const std::string* body) {
  net::HttpOptions http;
  http.timeout_s = options_.timeout_s;
  http.bearer = options_.api_key;
  http.cancel = options_.cancel;
  const std::string url = options_.url + path;
  double backoff = options_.first_backoff_s;
  for (int attempt = 0;; ++attempt) {
    auto response = body == nullptr ? client_.get(url, http) : client_.post(url, *body, http);
    if (response.ok() && response->ok()) return std::move(response->body);
    const Status error = response.ok() ? status_error(path, *response) : response.status();
    if (error.code() != Code::unavailable || attempt == options_.retries) return error;
    const double pause = response.ok() ? retry_after_s(*response, backoff) : backoff;
    NIBBLE_RETURN_IF_ERROR(wait(std::min(pause, kMaxBackoff_s)));
    backoff *= 2;
    ++retried_;
  }
}

Result<std::vector<std::string>> ChatEndpoint::models() {
  NIBBLE_TRY(body, send("/v1/models", nullptr));
  NIBBLE_TRY(json, parse_json(body, "/v1/models"));
  std::vector<std::string> ids;
  for (const Json& model : member(json, "data")) {
    if (const Json& id = member(model, "id"); id.is_string()) ids.push_back(id.get<std::string>());
  }
  if (ids.empty()) return corrupt("/v1/models: expected a list of models, got {}", body.substr(0, 200));
  return ids;
}

Result<Reply> ChatEndpoint::complete(const Json& messages, const Json& tools) {
  Json request = {{"model", options_.model},
                  {"messages", messages},
                  {"max_tokens", options_.max_tokens},
                  {"temperature", options_.temperature}};
  if (!tools.empty()) request["tools"] = tools;
  if (options_.thinking) request["chat_template_kwargs"] = {{"enable_thinking", *options_.thinking}};
  const std::string body = dump(request);
  NIBBLE_TRY(answer, send("/v1/chat/completions", &body));
  return parse_reply(answer);
}

}  // namespace nibble::gate

#include "gate/chat_endpoint.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "gate/chat_stream.h"
#include "net/sse_reader.h"

namespace nibble::gate {
namespace {

constexpr double kMaxBackoff_s = 8;
constexpr const char* kChatPath = "/v1/chat/completions";

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

// Negative where the server asked for nothing.
double retry_after_s(const net::HttpResponse& response) {
  const std::string* text = response.header("retry-after");
  int seconds = 0;
  if (text == nullptr) return -1;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  return error == std::errc() && seconds >= 0 ? seconds : -1;
}

LastResponse refused(const net::HttpResponse& response) {
  return {response.status, retry_after_s(response)};
}

size_t characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// From the clock of the call to that of the request: making a connection is not the model's time.
void shift(ReplyTimes& times, double ms) {
  for (double* at : {&times.headers_ms, &times.first_chunk_ms, &times.first_answer_ms, &times.end_ms}) {
    if (*at >= 0) *at -= ms;
  }
  for (double& at : times.answer_ms) at -= ms;
}

}  // namespace

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

net::HttpOptions ChatEndpoint::http_options() const {
  net::HttpOptions http;
  http.timeout_s = options_.reply_s;
  http.idle_timeout_s = options_.idle_s;
  http.first_byte_timeout_s = options_.first_token_s;
  http.bearer = options_.api_key;
  http.cancel = options_.cancel;
  return http;
}

Status ChatEndpoint::with_retries(const std::function<Attempt()>& attempt) {
  double backoff = options_.first_backoff_s;
  for (int i = 0;; ++i) {
    const Attempt made = attempt();
    last_ = made.last;
    if (made.status.code() != Code::unavailable || i == options_.retries) return made.status;
    NIBBLE_RETURN_IF_ERROR(
        wait(std::min(made.last.retry_after_s >= 0 ? made.last.retry_after_s : backoff, kMaxBackoff_s)));
    backoff *= 2;
    ++retried_;
  }
}

Result<std::string> ChatEndpoint::send(const std::string& path, const std::string* body) {
  std::string answer;
  const std::string url = options_.url + path;
  NIBBLE_RETURN_IF_ERROR(with_retries([&]() -> Attempt {
    auto response = body == nullptr ? client_.get(url, http_options()) : client_.post(url, *body, http_options());
    if (!response.ok()) return {response.status()};
    if (!response->ok()) return {status_error(path, *response), refused(*response)};
    answer = std::move(response->body);
    return {};
  }));
  return answer;
}

Result<std::vector<std::string>> ChatEndpoint::models() {
  NIBBLE_TRY(body, send("/v1/models"));
  NIBBLE_TRY(json, parse_json(body, "/v1/models"));
  std::vector<std::string> ids;
  for (const Json& model : member(json, "data")) {
    if (const Json& id = member(model, "id"); id.is_string()) ids.push_back(id.get<std::string>());
  }
  if (ids.empty()) return corrupt("/v1/models: expected a list of models, got {}", body.substr(0, 200));
  return ids;
}

ChatEndpoint::Attempt ChatEndpoint::stream(const std::string& body, const ChatRequest& request, StreamedReply& reply) {
  ChatStream chat;
  net::SseReader events;
  Status status;  // of what the stream says, while the exchange itself is fine
  const double begin_s = now_s();
  bool too_late = false;
  const auto on_data = [&](std::string_view bytes) {
    const double at_ms = (now_s() - begin_s) * 1e3;
    const Status fed = events.feed(bytes, [&](const net::SseEvent& event) {
      status = chat.take(event.data, at_ms);
      return status.ok();
    });
    if (!fed.ok()) status = fed;
    too_late = !chat.begun() && at_ms > options_.first_token_s * 1e3;
    StreamedReply& so_far = chat.reply();
    so_far.interrupted =
        request.interrupt_after_chars > 0 && characters(so_far.reply.content) >= request.interrupt_after_chars;
    return status.ok() && !too_late && !so_far.interrupted;
  };
  const auto response = client_.post_stream(options_.url + kChatPath, body, http_options(), on_data);
  if (!status.ok()) return {status};
  if (too_late) return {unavailable("{}: expected a first token within {} s", options_.url, options_.first_token_s)};
  if (!response.ok()) {
    const bool broke_early = response.status().code() == Code::io && !chat.begun();
    return {broke_early ? unavailable("{}", response.status().message()) : response.status()};
  }
  if (!response->ok()) return {status_error(kChatPath, *response), refused(*response)};
  if (!chat.reply().interrupted) {
    if (Status end = chat.end(); !end.ok()) return {end};
  }
  reply = std::move(chat.reply());
  reply.times.headers_ms = (response->headers_s - begin_s) * 1e3;
  reply.times.end_ms = (now_s() - begin_s) * 1e3;
  shift(reply.times, (response->sent_s - begin_s) * 1e3);
  return {};
}

Result<StreamedReply> ChatEndpoint::complete(const ChatRequest& request) {
  Json json = request.params;
  json["model"] = options_.model;
  json["messages"] = request.messages;
  if (!request.tools.empty()) json["tools"] = request.tools;
  json["stream"] = true;
  json["stream_options"] = {{"include_usage", true}};
  const std::string body = dump(json);
  StreamedReply reply;
  NIBBLE_RETURN_IF_ERROR(with_retries([&] { return stream(body, request, reply); }));
  return reply;
}

}  // namespace nibble::gate

#include "gate/chat_stream.h"

#include <algorithm>

namespace nibble::gate {
namespace {

// A model cannot make more calls than this in one message; a server that says so is broken.
constexpr size_t kMaxCalls = 1024;

std::string text_or_empty(const Json& json) {
  return json.is_string() ? json.get<std::string>() : std::string();
}

double time_or_none(const Json& json) {
  return json.is_number() && json.get<double>() >= 0 ? json.get<double>() : -1;
}

int64_t count_or_none(const Json& json) {
  return json.is_number_integer() && json.get<int64_t>() >= 0 ? json.get<int64_t>() : -1;
}

}  // namespace

const Json& member(const Json& json, const char* key) {
  static const Json null;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() ? *found : null;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void ChatStream::note(std::string rule) {
  if (std::find(out_.disorder.begin(), out_.disorder.end(), rule) == out_.disorder.end()) {
    out_.disorder.push_back(std::move(rule));
  }
}

Status ChatStream::take(std::string_view data, double at_ms) {
  if (data == "[DONE]") {
    done_ = true;
    return {};
  }
  if (done_) note("an event after [DONE]");
  NIBBLE_TRY(json, parse_json(data, "chat stream"));
  if (const Json& error = member(json, "error"); !error.is_null()) {
    const Json& message = member(error, "message");
    const std::string text = message.is_string() ? message.get<std::string>() : dump(error);
    return begun() ? io("chat stream: the server broke off: {}", text) : unavailable("chat stream: {}", text);
  }
  if (const Json& usage = member(json, "usage"); usage.is_object()) {
    if (out_.finish.empty()) note("usage before finish_reason");
    out_.usage.prompt_tokens = count_or_none(member(usage, "prompt_tokens"));
    out_.usage.completion_tokens = count_or_none(member(usage, "completion_tokens"));
    out_.usage.cached_tokens = count_or_none(member(member(usage, "prompt_tokens_details"), "cached_tokens"));
    out_.usage.reasoning_tokens = count_or_none(member(member(usage, "completion_tokens_details"), "reasoning_tokens"));
  }
  if (const Json& timings = member(json, "timings"); timings.is_object()) {
    out_.timings.prompt_ms = time_or_none(member(timings, "prompt_ms"));
    out_.timings.predicted_ms = time_or_none(member(timings, "predicted_ms"));
    out_.timings.predicted_per_second = time_or_none(member(timings, "predicted_per_second"));
  }
  if (const Json& healed = member(member(json, "nibble"), "healed_tool_calls"); healed.is_array()) {
    for (const Json& index : healed) {
      if (const int64_t call = count_or_none(index); call >= 0) out_.healed.push_back(static_cast<size_t>(call));
    }
  }
  const Json& choices = member(json, "choices");
  if (!choices.is_array()) return corrupt("chat stream: expected choices, got {}", data.substr(0, 200));
  if (choices.empty()) return {};
  if (out_.times.first_chunk_ms < 0) out_.times.first_chunk_ms = at_ms;
  return choice(choices[0], at_ms);
}

Status ChatStream::choice(const Json& choice, double at_ms) {
  const Json& delta = member(choice, "delta");
  if (!delta.is_object()) return corrupt("chat stream: expected a delta, got {}", dump(choice).substr(0, 200));
  const std::string role = text_or_empty(member(delta, "role"));
  if (!role.empty()) {
    if (role != "assistant") note("a role other than assistant");
    if (role_seen_) note("the role twice");
    role_seen_ = true;
  } else if (!role_seen_ && !delta.empty()) {
    note("a delta before the role");
    role_seen_ = true;
  }
  std::string reasoning = text_or_empty(member(delta, "reasoning_content"));
  if (reasoning.empty()) reasoning = text_or_empty(member(delta, "reasoning"));
  out_.reply.reasoning += reasoning;
  const std::string content = text_or_empty(member(delta, "content"));
  const Json& new_calls = member(delta, "tool_calls");
  if (!content.empty() || (new_calls.is_array() && !new_calls.empty())) {
    if (!out_.finish.empty()) note("content after finish_reason");
    if (out_.times.first_answer_ms < 0) out_.times.first_answer_ms = at_ms;
    out_.times.answer_ms.push_back(at_ms);
  }
  out_.reply.content += content;
  if (new_calls.is_array()) NIBBLE_RETURN_IF_ERROR(calls(new_calls));
  if (const std::string finish = text_or_empty(member(choice, "finish_reason")); !finish.empty()) {
    if (!out_.finish.empty()) note("finish_reason twice");
    out_.finish = finish;
  }
  return {};
}

Status ChatStream::calls(const Json& calls) {
  std::vector<ToolCall>& known = out_.reply.calls;
  for (const Json& fragment : calls) {
    const int64_t said = count_or_none(member(fragment, "index"));
    // A server that gives no index sends whole calls, one after the other.
    const size_t index = said < 0 ? known.size() : static_cast<size_t>(said);
    if (said < 0) note("a call without an index");
    if (index > known.size() || index >= kMaxCalls) {
      return corrupt("chat stream: expected call {} next, got index {}", known.size(), index);
    }
    const Json& function = member(fragment, "function");
    const std::string name = text_or_empty(member(function, "name"));
    if (index == known.size()) {
      if (name.empty()) return corrupt("chat stream: expected function.name in the first fragment of call {}", index);
      known.push_back({.id = text_or_empty(member(fragment, "id")), .name = name, .arguments = {}});
      if (known.back().id.empty()) note("a call without an id");
    } else if (!name.empty()) {
      note("the name of a call twice");
    } else if (index + 1 != known.size()) {
      note("fragments of two calls mixed");
    }
    const Json& arguments = member(function, "arguments");
    known[index].arguments += arguments.is_null()     ? ""
                              : arguments.is_string() ? arguments.get<std::string>()
                                                      : dump(arguments);
  }
  return {};
}

Status ChatStream::end() {
  if (out_.finish.empty()) {
    return begun() ? io("chat stream: expected a finish_reason, got the end of the stream")
                   : unavailable("chat stream: expected an answer, got the end of the stream");
  }
  if (!done_) note("no [DONE] at the end");
  return {};
}

}  // namespace nibble::gate

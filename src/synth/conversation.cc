#include "synth/conversation.h"

#include <vector>

#include "gate/chat_stream.h"

namespace nibble::synth {
namespace {

// A JSON object, or the text that is none.
Json arguments_of(const Json* arguments) {
  if (arguments == nullptr) return Json::object();
  if (!arguments->is_string()) return *arguments;
  const auto& text = arguments->get_ref<const std::string&>();
  if (text.empty()) return Json::object();
  const auto json = parse_json(text, "arguments");
  return json.ok() && json->is_object() ? *json : *arguments;
}

Json call_of(std::string name, Json arguments) {
  return {{"type", "function"}, {"function", {{"name", std::move(name)}, {"arguments", std::move(arguments)}}}};
}

Result<Json> read_calls(const Json& calls, size_t index) {
  if (!calls.is_array()) return corrupt("message {}: tool_calls: expected a list, got {}", index, calls.type_name());
  Json out = Json::array();
  for (const Json& call : calls) {
    const Json* nested = call.is_object() ? find_value(call, "function") : nullptr;
    const Json& function = nested != nullptr && nested->is_object() ? *nested : call;
    const Json* name = function.is_object() ? find_value(function, "name") : nullptr;
    if (name == nullptr || !name->is_string())
      return corrupt("message {}: tool_calls: expected a call with a name", index);
    out.push_back(call_of(name->get<std::string>(), arguments_of(find_value(function, "arguments"))));
  }
  return out;
}

}  // namespace

Result<Json> read_messages(const Json& written) {
  if (!written.is_array()) return corrupt("messages: expected a list, got {}", written.type_name());
  Json out = Json::array();
  for (size_t i = 0; i < written.size(); ++i) {
    const Json& message = written[i];
    const Json* role = message.is_object() ? find_value(message, "role") : nullptr;
    if (role == nullptr || !role->is_string()) return corrupt("message {}: expected an object with a role", i + 1);
    if (i == 0 && *role == "system") continue;
    const Json* content = find_value(message, "content");
    const bool result = *role == "tool";
    if (content != nullptr && !content->is_string() && !result) {
      return corrupt("message {}: content: expected text, got {}", i + 1, content->type_name());
    }
    Json read = {{"role", *role}, {"content", ""}};
    if (content != nullptr) read["content"] = content->is_string() ? content->get<std::string>() : gate::dump(*content);
    for (const char* key : {"reasoning_content", "reasoning"}) {
      if (const Json* text = find_value(message, key); text != nullptr && text->is_string()) {
        read["reasoning_content"] = *text;
      }
    }
    if (const Json* calls = find_value(message, "tool_calls"); calls != nullptr && !calls->empty()) {
      NIBBLE_TRY(list, read_calls(*calls, i + 1));
      read["tool_calls"] = list;
    }
    out.push_back(std::move(read));
  }
  return out;
}

Json message_of(const gate::Reply& reply) {
  Json message = {{"role", "assistant"}, {"content", reply.content}};
  if (!reply.reasoning.empty()) message["reasoning_content"] = reply.reasoning;
  for (const gate::ToolCall& call : reply.calls) {
    const Json arguments = call.arguments;
    message["tool_calls"].push_back(call_of(call.name, arguments_of(&arguments)));
  }
  return message;
}

Json api_messages(const Json& messages) {
  Json out = Json::array();
  std::vector<std::string> open;  // ids of calls without a result
  int64_t count = 0;
  for (const Json& message : messages) {
    Json sent = message;
    if (sent.contains("tool_calls")) {
      open.clear();
      for (Json& call : sent["tool_calls"]) {
        open.push_back(fmt::format("call_{}", ++count));
        call["id"] = open.back();
        Json& arguments = call["function"]["arguments"];
        if (!arguments.is_string()) arguments = gate::dump(arguments);
      }
    }
    if (sent["role"] == "tool" && !open.empty()) {
      sent["tool_call_id"] = open.front();
      open.erase(open.begin());
    }
    out.push_back(std::move(sent));
  }
  return out;
}

int64_t count_calls(const Json& messages) {
  int64_t count = 0;
  for (const Json& message : messages) {
    for_each_call(message, [&](const Json&) { ++count; });
  }
  return count;
}

bool is_empty_result(const std::string& content) {
  if (content.find_first_not_of(" \t\r\n") == std::string::npos) return true;
  const auto json = parse_json(content, "result");
  if (!json.ok()) return false;
  if (json->is_null()) return true;
  if (json->is_array()) return json->empty();
  if (!json->is_object()) return false;
  size_t arrays = 0;
  for (const auto& item : json->items()) {
    if (!item.value().is_array()) continue;
    ++arrays;
    if (!item.value().empty()) return false;
  }
  return arrays > 0;
}

bool is_failed_result(const std::string& content) {
  const auto json = parse_json(content, "result");
  return json.ok() && json->is_object() && find_value(*json, "error") != nullptr && (*json)["error"] != false;
}

}  // namespace nibble::synth

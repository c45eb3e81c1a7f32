#include "gate/capabilities.h"

#include "gate/chat_stream.h"

namespace nibble::gate {
namespace {

constexpr int kTokens = 16;

class Probe {
 public:
  explicit Probe(ChatEndpoint& endpoint) : endpoint_(endpoint) {}

  /// The message that answers a short request with these further fields, or null where the server refused them; nothing
  /// where it gave no answer at all.
  Result<std::optional<Json>> ask(const Json& fields) {
    Json request = {{"model", endpoint_.options().model},
                    {"messages", {{{"role", "user"}, {"content", "Say yes."}}}},
                    {"max_tokens", kTokens},
                    {"temperature", 0}};
    for (const auto& field : fields.items()) request[field.key()] = field.value();
    const std::string body = dump(request);
    auto answer = endpoint_.send("/v1/chat/completions", &body);
    if (answer.status().code() == Code::cancelled) return answer.status();
    if (answer.status().code() == Code::invalid_argument) return std::optional<Json>(nullptr);
    if (!answer.ok()) return std::optional<Json>();
    const auto json = parse_json(*answer, "answer");
    if (!json.ok()) return std::optional<Json>();
    const Json& choices = member(*json, "choices");
    if (!choices.is_array() || choices.empty()) return std::optional<Json>();
    return std::optional<Json>(choices[0]);
  }

 private:
  ChatEndpoint& endpoint_;
};

std::optional<bool> accepted(const std::optional<Json>& choice) {
  return choice ? std::optional(!choice->is_null()) : std::nullopt;
}

}  // namespace

Result<Capabilities> probe(ChatEndpoint& endpoint) {
  EndpointOptions once = endpoint.options();
  once.retries = 0;
  ChatEndpoint asked(once);
  Probe probe(asked);
  Capabilities found;

  const Json tool = {
      {"type", "function"},
      {"function", {{"name", "noop"}, {"description", "Does nothing."}, {"parameters", {{"type", "object"}}}}}};
  NIBBLE_TRY(with_tools, probe.ask({{"tools", {tool}}}));
  found.tools = accepted(with_tools);

  const Json schema = {{"type", "object"},
                       {"properties", {{"a", {{"type", "boolean"}}}}},
                       {"required", {"a"}},
                       {"additionalProperties", false}};
  NIBBLE_TRY(structured,
             probe.ask({{"response_format",
                         {{"type", "json_schema"}, {"json_schema", {{"name", "yes"}, {"schema", schema}}}}}}));
  found.json_schema = accepted(structured);
  if (found.json_schema == true) {
    const Json& content = member(member(*structured, "message"), "content");
    const auto json = parse_json(content.is_string() ? content.get<std::string>() : "", "content");
    found.json_schema = json.ok() && member(*json, "a").is_boolean();
  }

  NIBBLE_TRY(logprobs, probe.ask({{"logprobs", true}, {"top_logprobs", 1}}));
  found.logprobs = accepted(logprobs);
  if (found.logprobs == true) found.logprobs = member(member(*logprobs, "logprobs"), "content").is_array();

  for (const bool thinking : {false, true}) {
    NIBBLE_TRY(with_kwargs, probe.ask({{"chat_template_kwargs", {{"enable_thinking", thinking}}}}));
    if (!thinking) found.template_kwargs = accepted(with_kwargs);
    if (!with_kwargs) continue;
    const Json& message = member(*with_kwargs, "message");
    for (const char* field : {"reasoning_content", "reasoning"}) {
      if (found.reasoning_field.empty() && member(message, field).is_string()) found.reasoning_field = field;
    }
  }
  return found;
}

Json to_json(const Capabilities& capabilities) {
  Json json = Json::object();
  for (const auto& [name, value] : {std::pair{"tools", capabilities.tools},
                                    {"json_schema", capabilities.json_schema},
                                    {"logprobs", capabilities.logprobs},
                                    {"chat_template_kwargs", capabilities.template_kwargs}}) {
    json[name] = value ? Json(*value) : Json(nullptr);
  }
  json["reasoning_field"] = capabilities.reasoning_field;
  return json;
}

std::string lacking(const Case& one, const Capabilities& capabilities) {
  if (!one.tools.empty() && capabilities.tools == false) return "tools";
  if (find_value(one.params, "response_format") != nullptr && capabilities.json_schema == false) return "json_schema";
  return {};
}

}  // namespace nibble::gate

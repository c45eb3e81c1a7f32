#include "text/chat_normalise.h"

#include <algorithm>
#include <utility>

namespace nibble::text {
namespace {

bool has_role(const Json& message, std::string_view role) {
  return message["role"] == role;
}

Status join_content(Json& message, size_t index) {
  Json& content = message["content"];  // null where there was none
  if (content.is_null()) content = "";
  if (content.is_string()) return {};
  if (!content.is_array()) {
    return invalid_argument("messages[{}].content: expected a string or an array of parts, got {}", index,
                            content.type_name());
  }
  std::string joined;
  for (const Json& part : content) {
    if (!part.is_object() || part.value("type", Json()) != "text" || !part.value("text", Json()).is_string()) {
      return unsupported("messages[{}].content: expected parts of type \"text\", got {}", index,
                         part.is_object() ? part.value("type", Json("no type")).dump() : part.type_name());
    }
    joined += part["text"].get_ref<const std::string&>();
  }
  content = std::move(joined);
  return {};
}

void parse_arguments(Json& message, const TemplateTraits& traits) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object()) continue;
    Json& function = call.contains("function") && call["function"].is_object() ? call["function"] : call;
    const auto arguments = function.find("arguments");
    if (arguments != function.end() && arguments->is_null()) *arguments = Json::object();
    if (arguments == function.end() || !arguments->is_string()) continue;
    const auto& text = arguments->get_ref<const std::string&>();
    Result<Json> parsed = text.empty() ? Result<Json>(Json::object()) : parse_json(text, "arguments");
    if (parsed.ok() && parsed->is_object()) {
      *arguments = std::move(*parsed);
    } else if (!traits.accepts_string_arguments) {
      *arguments = Json{{"arguments", text}};
    }
  }
}

Result<Json> normalise_message(const Json& source, size_t index, const TemplateTraits& traits) {
  if (!source.is_object() || !source.contains("role") || !source["role"].is_string()) {
    return invalid_argument("messages[{}]: expected an object with a role", index);
  }
  Json message = source;
  if (has_role(message, "developer")) message["role"] = "system";
  NIBBLE_RETURN_IF_ERROR(join_content(message, index));
  const auto reasoning = message.find("reasoning");
  const bool named = message.contains("reasoning_content") && !message["reasoning_content"].is_null();
  if (reasoning != message.end() && reasoning->is_string() && !named) {
    const Json text = *reasoning;  // a new key may move the old one
    message["reasoning_content"] = text;
  }
  parse_arguments(message, traits);
  return message;
}

// Rules 2 and the first half of 4: `messages` begins with `leading` system messages.
void join_leading_system(Json& messages, size_t leading, bool last_becomes_user) {
  if (leading < 2) return;
  if (last_becomes_user) messages[--leading]["role"] = "user";
  std::string joined;
  for (size_t i = 0; i < leading; ++i) {
    if (i > 0) joined += "\n\n";
    joined += messages[i]["content"].get_ref<const std::string&>();
  }
  messages[0]["content"] = std::move(joined);
  messages.erase(messages.begin() + 1, messages.begin() + static_cast<std::ptrdiff_t>(leading));
}

bool maps_names(std::string_view key) {
  return key == "properties" || key == "patternProperties" || key == "$defs" || key == "definitions";
}

bool holds_values(std::string_view key) {
  return key == "enum" || key == "const" || key == "default" || key == "examples";
}

// `names`: the keys of this object are names that a schema chose, not keywords.
void drop_titles(Json& schema, bool names) {
  if (schema.is_array()) {
    for (Json& item : schema) drop_titles(item, false);
  }
  if (!schema.is_object()) return;
  if (!names && schema.contains("title") && schema["title"].is_string()) schema.erase("title");
  for (auto& item : schema.items()) {
    if (names || !holds_values(item.key())) drop_titles(item.value(), !names && maps_names(item.key()));
  }
}

}  // namespace

Result<Json> normalise_messages(const Json& source, const ChatTemplate& chat_template,
                                const NormaliseOptions& options) {
  if (!source.is_array()) return invalid_argument("messages: expected an array, got {}", source.type_name());
  const TemplateTraits& traits = chat_template.traits();
  Json messages = Json::array();
  for (size_t i = 0; i < source.size(); ++i) {
    NIBBLE_TRY(message, normalise_message(source[i], i, traits));
    messages.push_back(std::move(message));
  }
  const auto is_system = [](const Json& message) { return has_role(message, "system"); };
  const auto leading_end = std::find_if_not(messages.begin(), messages.end(), is_system);
  const auto leading = static_cast<size_t>(leading_end - messages.begin());
  const bool user_is_missing = traits.needs_user && std::none_of(messages.begin(), messages.end(),
                                                                 [](const Json& m) { return has_role(m, "user"); });
  for (size_t i = leading; i < messages.size(); ++i) {
    if (is_system(messages[i]) && !traits.renders_late_system) messages[i]["role"] = "user";
  }
  join_leading_system(messages, leading, user_is_missing);
  if (user_is_missing && leading < 2) {
    messages.push_back({{"role", "user"}, {"content", options.no_user_text}});
  }
  return messages;
}

Json normalise_tools(const Json& tools) {
  Json result = tools;
  if (!result.is_array()) return result;
  for (Json& tool : result) {
    if (!tool.is_object()) continue;
    tool.erase("strict");
    const auto function = tool.find("function");
    if (function == tool.end() || !function->is_object()) continue;
    function->erase("strict");
    const auto parameters = function->find("parameters");
    if (parameters != function->end()) drop_titles(*parameters, false);
  }
  return result;
}

}  // namespace nibble::text

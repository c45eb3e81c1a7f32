#include "serve/chat_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "serve/field_reader.h"

namespace nibble::serve {
namespace {

constexpr size_t kMaxMessages = 2048, kMaxTools = 128, kMaxToolBytes = size_t{256} << 10;
constexpr size_t kNameBytes = 256, kTextBytes = size_t{8} << 20;
constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

void read_parts(FieldReader& fields, const Json& parts, std::string& out) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string at = fmt::format("content[{}]", i);
    const Json& part = parts[i];
    if (!part.is_object()) return fields.fail_expected(at, "a content part", part);
    FieldReader reader(part, fields.path(at));
    std::string type, text;
    reader.string("type", kNameBytes, type);
    if (reader.ok() && type != "text") {
      ApiError error = invalid_value(reader.path("type"), fmt::format("expected \"text\", got {}", shown(type)));
      error.code = "unsupported_content";
      reader.fail(std::move(error));
    }
    if (reader.ok() && !reader.find("text")) reader.fail(invalid_value(reader.path("text"), "expected a string"));
    reader.string("text", kTextBytes, text);
    if (reader.error()) return fields.fail(*reader.error());
    out += text;
  }
}

void read_content(FieldReader& fields, Json& message) {
  const Json* content = fields.find("content");
  // Not null: templates add it to strings.
  message["content"] = "";
  if (!content) return;
  if (content->is_string()) {
    message["content"] = *content;
  } else if (content->is_array()) {
    std::string text;
    read_parts(fields, *content, text);
    message["content"] = std::move(text);
  } else {
    fields.fail_expected("content", "a string, null or a list of parts", *content);
  }
}

std::optional<ApiError> read_call(const Json& call, const std::string& where, Json& out) {
  if (!call.is_object()) return invalid_value(where, fmt::format("expected an object, got {}", shown(call)));
  FieldReader fields(call, where);
  std::string id, type = "function";
  fields.string("id", kNameBytes, id);
  fields.string("type", kNameBytes, type);
  if (type != "function") fields.fail_expected("type", "\"function\"", type);
  const Json* function = fields.find("function");
  if (fields.error()) return fields.error();
  if (!function || !function->is_object()) return invalid_value(fields.path("function"), "expected an object");

  FieldReader inner(*function, fields.path("function"));
  std::string name;
  inner.string("name", kNameBytes, name);
  if (name.empty()) inner.fail(invalid_value(inner.path("name"), "expected the name of a function"));
  const Json* arguments = inner.find("arguments");
  if (arguments && !arguments->is_string() && !arguments->is_object()) {
    inner.fail_expected("arguments", "a string of JSON or an object", *arguments);
  }
  if (inner.error()) return inner.error();
  if (!id.empty()) out["id"] = id;
  out["type"] = "function";
  out["function"] = {{"name", name}, {"arguments", arguments ? *arguments : Json::object()}};
  return std::nullopt;
}

void read_calls(FieldReader& fields, Json& message) {
  const Json* calls = fields.find("tool_calls");
  if (!calls) return;
  if (!calls->is_array()) return fields.fail_expected("tool_calls", "a list", *calls);
  Json list = Json::array();
  for (size_t i = 0; i < calls->size(); ++i) {
    Json call = Json::object();
    if (auto error = read_call((*calls)[i], fields.path(fmt::format("tool_calls[{}]", i)), call)) {
      return fields.fail(std::move(*error));
    }
    list.push_back(std::move(call));
  }
  if (!list.empty()) message["tool_calls"] = std::move(list);
}

void read_optional_text(FieldReader& fields, std::string_view name, std::string_view as, Json& message) {
  std::string text;
  fields.string(name, kTextBytes, text);
  if (!text.empty()) message[std::string(as)] = std::move(text);
}

std::optional<ApiError> read_message(const Json& in, const std::string& where, Json& out) {
  if (!in.is_object()) return invalid_value(where, fmt::format("expected an object, got {}", shown(in)));
  FieldReader fields(in, where);
  const Json* role = fields.find("role");
  if (!role || !role->is_string() || std::ranges::find(kRoles, role->get<std::string>()) == kRoles.end()) {
    return invalid_value(fields.path("role"), fmt::format("expected system, developer, user, assistant or tool, got {}",
                                                          role ? shown(*role) : "nothing"));
  }
  out["role"] = *role;
  const bool is_assistant = *role == "assistant";
  read_content(fields, out);
  if (is_assistant) {
    read_optional_text(fields, "reasoning", "reasoning_content", out);
    read_optional_text(fields, "reasoning_content", "reasoning_content", out);
    read_calls(fields, out);
    fields.refuse({"function_call"});
  }
  read_optional_text(fields, "tool_call_id", "tool_call_id", out);
  read_optional_text(fields, "name", "name", out);
  return fields.error();
}

ApiError invalid_tool(const std::string& where, std::string message) {
  ApiError error = invalid_value(where, std::move(message));
  error.code = "invalid_tool";
  return error;
}

std::optional<ApiError> read_tool(const Json& in, const std::string& where) {
  if (!in.is_object()) return invalid_tool(where, fmt::format("expected an object, got {}", shown(in)));
  const Json type = in.value("type", Json()), function = in.value("function", Json());
  if (type != "function")
    return invalid_tool(where + ".type", fmt::format("expected \"function\", got {}", shown(type)));
  if (!function.is_object()) return invalid_tool(where + ".function", "expected an object, got " + shown(function));
  const Json name = function.value("name", Json()), parameters = function.value("parameters", Json());
  const Json description = function.value("description", Json());
  if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
      name.get_ref<const std::string&>().size() > kNameBytes) {
    return invalid_tool(where + ".function.name", "expected a name of 1 to 256 bytes, got " + shown(name));
  }
  if (!parameters.is_object() && !parameters.is_null()) {
    return invalid_tool(where + ".function.parameters", "expected a JSON schema object, got " + shown(parameters));
  }
  if (!description.is_string() && !description.is_null()) {
    return invalid_tool(where + ".function.description", "expected a string, got " + shown(description));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> read_messages(const Json& messages, Json& out) {
  if (!messages.is_array() || messages.empty() || messages.size() > kMaxMessages) {
    return invalid_value("messages",
                         fmt::format("expected a list of 1 to {} messages, got {}", kMaxMessages, shown(messages)));
  }
  out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    Json message = Json::object();
    if (auto error = read_message(messages[i], fmt::format("messages[{}]", i), message)) return error;
    out.push_back(std::move(message));
  }
  return std::nullopt;
}

std::optional<ApiError> read_tools(const Json& tools, Json& out) {
  if (!tools.is_array() || tools.size() > kMaxTools) {
    return invalid_tool("tools", fmt::format("expected a list of at most {} tools, got {}", kMaxTools, shown(tools)));
  }
  if (const size_t bytes = dump(tools).size(); bytes > kMaxToolBytes) {
    return invalid_tool("tools", fmt::format("expected at most {} bytes, got {}", kMaxToolBytes, bytes));
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    if (auto error = read_tool(tools[i], fmt::format("tools[{}]", i))) return error;
  }
  out = tools;
  return std::nullopt;
}

}  // namespace nibble::serve

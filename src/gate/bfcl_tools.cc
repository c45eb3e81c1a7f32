#include "gate/bfcl_tools.h"

#include <algorithm>

#include "gate/chat_stream.h"
#include "gate/suite_loader.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

constexpr size_t kMaxName = 64;

struct TypeWord {
  std::string_view bfcl, schema;
};
constexpr TypeWord kTypeWords[] = {
    {"string", "string"},   {"String", "string"},   {"char", "string"},      {"any", "string"},
    {"Any", "string"},      {"integer", "integer"}, {"byte", "integer"},     {"short", "integer"},
    {"long", "integer"},    {"Bigint", "integer"},  {"number", "number"},    {"float", "number"},
    {"double", "number"},   {"boolean", "boolean"}, {"bool", "boolean"},     {"Boolean", "boolean"},
    {"array", "array"},     {"list", "array"},      {"tuple", "array"},      {"Array", "array"},
    {"ArrayList", "array"}, {"Queue", "array"},     {"Stack", "array"},      {"object", "object"},
    {"dict", "object"},     {"HashMap", "object"},  {"Hashtable", "object"}, {"null", "null"},
};

// The words of a schema and of all that stand in it. The parser has bounded the depth.
void rename_types(Json& schema) {
  if (!schema.is_object()) return;
  if (const Json& type = member(schema, "type"); type.is_string()) {
    const auto& word = type.get_ref<const std::string&>();
    const auto* known = std::find_if(std::begin(kTypeWords), std::end(kTypeWords),
                                     [&](const TypeWord& each) { return each.bfcl == word; });
    if (known == std::end(kTypeWords)) {
      schema.erase("type");
    } else {
      schema["type"] = known->schema;
    }
  }
  if (const auto properties = schema.find("properties"); properties != schema.end() && properties->is_object()) {
    for (Json& property : *properties) rename_types(property);
  }
  for (const char* key : {"items", "additionalProperties"}) {
    if (const auto inner = schema.find(key); inner != schema.end()) rename_types(*inner);
  }
}

// A parameter whose value is written in the language.
void take_source_text(Json& property, const std::string& language) {
  if (!property.is_object()) return;
  const Json& type = member(property, "type");
  const Json& elements = member(member(property, "items"), "type");
  const Json& description = member(property, "description");
  std::string said = description.is_string() ? description.get<std::string>() + " " : "";
  said += fmt::format("({} source text", language);
  if (type.is_string() && type != "any") said += " of type " + type.get<std::string>();
  if (elements.is_string()) said += " with elements of type " + elements.get<std::string>();
  property = {{"type", "string"}, {"description", said + ")"}};
}

bool is_sendable(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

}  // namespace

Result<Json> openai_tools(const Json& functions, const std::string& language, const std::string& where) {
  Json tools = Json::array();
  for (const Json& definition : functions) {
    const std::string at = fmt::format("{}: function[{}]", where, tools.size());
    NIBBLE_TRY(name, text_member(definition, "name", at));
    std::replace(name.begin(), name.end(), '.', '_');
    if (!is_sendable(name)) {
      return corrupt("{}: name: expected 1 to {} letters, digits, _, - and dots, got \"{}\"", at, kMaxName,
                     text::clipped(name, 80));
    }
    Json parameters = member(definition, "parameters");
    if (!parameters.is_object()) {
      return corrupt("{}: parameters: expected an object, got {}", at, parameters.type_name());
    }
    Json& properties = parameters["properties"];
    if (properties.is_null()) properties = Json::object();
    if (!properties.is_object()) {
      return corrupt("{}: properties: expected an object, got {}", at, properties.type_name());
    }
    for (Json& property : properties) {
      if (!language.empty()) take_source_text(property, language);
    }
    rename_types(parameters);
    Json function = {{"name", name}};
    if (const Json& description = member(definition, "description"); description.is_string()) {
      function["description"] = description;
    }
    function["parameters"] = std::move(parameters);
    tools.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return tools;
}

}  // namespace nibble::gate

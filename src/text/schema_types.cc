#include "text/schema_types.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "text/blanks.h"
#include "text/json_reference.h"
#include "text/json_scanner.h"

namespace nibble::text {
namespace {

constexpr std::array<std::pair<std::string_view, TypeSet::Type>, 30> kTypeNames = {{
    {"string", TypeSet::string},    {"str", TypeSet::string},     {"text", TypeSet::string},
    {"varchar", TypeSet::string},   {"char", TypeSet::string},    {"enum", TypeSet::string},
    {"integer", TypeSet::integer},  {"int", TypeSet::integer},    {"int32", TypeSet::integer},
    {"int64", TypeSet::integer},    {"long", TypeSet::integer},   {"short", TypeSet::integer},
    {"unsigned", TypeSet::integer}, {"number", TypeSet::number},  {"float", TypeSet::number},
    {"float32", TypeSet::number},   {"float64", TypeSet::number}, {"double", TypeSet::number},
    {"boolean", TypeSet::boolean},  {"bool", TypeSet::boolean},   {"object", TypeSet::object},
    {"dict", TypeSet::object},      {"array", TypeSet::array},    {"arr", TypeSet::array},
    {"list", TypeSet::array},       {"sequence", TypeSet::array}, {"null", TypeSet::null},
    {"int8", TypeSet::integer},     {"int16", TypeSet::integer},  {"none", TypeSet::null},
}};

TypeSet::Type type_named(std::string_view word) {
  for (const auto& [known, type] : kTypeNames) {
    if (word == known) return type;
  }
  return word.starts_with("uint") ? TypeSet::integer : TypeSet::other;
}

TypeSet::Type type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return TypeSet::null;
    case Json::value_t::boolean:
      return TypeSet::boolean;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return TypeSet::integer;
    case Json::value_t::number_float:
      return TypeSet::number;
    case Json::value_t::object:
      return TypeSet::object;
    case Json::value_t::array:
      return TypeSet::array;
    default:
      return TypeSet::string;
  }
}

const Json* member(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

// Adds what one schema says itself, and queues those that it refers to.
void add_types(const Json& schema, const Json& root, TypeSet& types, std::vector<const Json*>& queue) {
  if (const Json* type = member(schema, "type")) {
    if (type->is_string()) types.add(type_named(type->get_ref<const std::string&>()));
    if (type->is_array()) {
      for (const Json& word : *type) {
        if (word.is_string()) types.add(type_named(word.get_ref<const std::string&>()));
      }
    }
  }
  if (const Json* values = member(schema, "enum"); values != nullptr && values->is_array()) {
    for (const Json& value : *values) types.add(type_of(value));
  }
  if (const Json* value = member(schema, "const")) types.add(type_of(*value));
  for (const char* keyword : {"anyOf", "oneOf", "allOf"}) {
    const Json* branches = member(schema, keyword);
    if (branches == nullptr || !branches->is_array()) continue;
    for (const Json& branch : *branches) queue.push_back(&branch);
  }
  if (const Json* reference = member(schema, "$ref"); reference != nullptr && reference->is_string()) {
    if (const Json* target = resolve_reference(reference->get_ref<const std::string&>(), root)) queue.push_back(target);
  }
}

bool equals_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] - 'A' + 'a') : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

bool is_number(std::string_view text, bool integral) {
  JsonNumber number;
  for (const char c : text) {
    if (!number.push(c)) return false;
  }
  return number.valid() && number.finite() && (number.integral() || !integral);
}

std::optional<std::string> convert_to_json(std::string_view text, TypeSet types) {
  if (types.has(TypeSet::null) && equals_ignoring_case(text, "null")) return "null";
  if (types.has(TypeSet::integer) && is_number(text, true)) return std::string(text);
  if (types.has(TypeSet::number) && is_number(text, false)) return std::string(text);
  if (types.has(TypeSet::boolean)) {
    if (text == "1" || equals_ignoring_case(text, "true")) return "true";
    if (text == "0" || equals_ignoring_case(text, "false")) return "false";
  }
  const bool container = text.starts_with('{') || text.starts_with('[');
  const bool container_due = types.has(TypeSet::object) || types.has(TypeSet::array);
  if ((container && container_due) || types.has(TypeSet::other)) return reprint_json(text);
  return std::nullopt;
}

}  // namespace

TypeSet schema_types(const Json& schema, const Json& root) {
  TypeSet types;
  std::vector<const Json*> queue = {&schema};
  std::unordered_set<const Json*> seen;
  while (!queue.empty()) {
    const Json* next = queue.back();
    queue.pop_back();
    if (seen.insert(next).second) add_types(*next, root, types, queue);
  }
  return types;
}

ToolTypes::ToolTypes(const Json& tools) {
  if (!tools.is_array()) return;
  for (const Json& tool : tools) {
    const Json* function = member(tool, "function");
    if (function == nullptr) continue;
    const Json* name = member(*function, "name");
    if (name == nullptr || !name->is_string()) continue;
    ParameterTypes& types = functions_[name->get<std::string>()];
    const Json* parameters = member(*function, "parameters");
    const Json* properties = parameters == nullptr ? nullptr : member(*parameters, "properties");
    if (properties == nullptr || !properties->is_object()) continue;
    for (const auto& [key, schema] : properties->items()) types[key] = schema_types(schema, *parameters);
  }
}

const ParameterTypes* ToolTypes::function(std::string_view name) const {
  const auto it = functions_.find(name);
  return it == functions_.end() ? nullptr : &it->second;
}

std::string convert_value(std::string_view value, TypeSet types) {
  return convert_to_json(trimmed(value), types).value_or(json_string(value));
}

}  // namespace nibble::text

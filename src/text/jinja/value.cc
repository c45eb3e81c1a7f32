#include "text/jinja/value.h"

#include <algorithm>
#include <limits>

#include "text/jinja/error.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

int depth_of(const Value& value) {
  if (value.is_list()) return value.as_list().depth;
  if (value.is_dict()) return value.as_dict().depth;
  return 0;
}

int enclose(int depth, const Value& part) {
  if (!part.is_storable()) raise("expected a value that can be stored, got a {}", type_name(part));
  depth = std::max(depth, depth_of(part) + 1);
  if (depth > kMaxDepth) raise("expected at most {} levels of nested values, got more", kMaxDepth);
  return depth;
}

}  // namespace

Value Value::undefined(std::string why) {
  return {std::make_shared<const std::string>(std::move(why)), {}};
}

Value Value::list(std::vector<Value> items, Origin origin, bool tuple) {
  int depth = 1;
  for (const Value& item : items) depth = enclose(depth, item);
  return {std::make_shared<const List>(List{std::move(items), tuple, depth}), origin};
}

Value Value::dict(std::vector<std::pair<Value, Value>> entries, Origin origin, int message) {
  int depth = 1;
  for (const auto& [key, value] : entries) depth = enclose(enclose(depth, key), value);
  return {std::make_shared<const Dict>(Dict{std::move(entries), depth, message}), origin};
}

Value Value::method(Value self, std::string name) {
  return {std::make_shared<const Method>(Method{std::move(self), std::move(name)}), {}};
}

const std::string& Value::why_undefined() const {
  return *std::get<Why>(rep_);
}

bool Value::is_storable() const {
  switch (kind()) {
    case Kind::name_space:
    case Kind::loop:
    case Kind::macro:
    case Kind::method:
    case Kind::function:
      return false;
    default:
      return true;
  }
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : entries) {
    if (k.is_string() && k.bytes() == key) return &v;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key, Budget& budget) const {
  budget.step(entries.size() / 16);
  if (key.is_string()) return find(key.bytes());
  if (!is_hashable(key)) raise("unhashable type: '{}'", type_name(key));
  for (const auto& [k, v] : entries) {
    if (equal(k, key, budget)) return &v;
  }
  return nullptr;
}

void Namespace::set(const std::string& name, Value value) {
  if (!value.is_storable()) raise("expected a value that can be stored, got a {}", type_name(value));
  for (auto& [n, v] : attributes) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  attributes.emplace_back(name, std::move(value));
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [n, v] : attributes) {
    if (n == name) return &v;
  }
  return nullptr;
}

namespace {

Value convert(const Json& json, Origin origin, int depth) {
  if (depth > kMaxDepth) raise("expected at most {} levels of nested values, got more", kMaxDepth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>(), origin);
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>(), origin);
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        raise("expected integers of at most 64 bits, got {}", json.get<uint64_t>());
      }
      return Value::integer(json.get<int64_t>(), origin);
    case Json::value_t::number_float:
      return Value::real(json.get<double>(), origin);
    case Json::value_t::string:
      return Value::string(json.get_ref<const std::string&>(), origin);
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(convert(item, origin, depth + 1));
      return Value::list(std::move(items), origin);
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        entries.emplace_back(Value::string(key, origin), convert(item, origin, depth + 1));
      }
      return Value::dict(std::move(entries), origin);
    }
    default:
      return Value::none(origin);
  }
}

Field field_of(std::string_view key) {
  if (key == "role") return Field::role;
  if (key == "content") return Field::content;
  if (key == "reasoning_content" || key == "reasoning" || key == "thinking") return Field::reasoning;
  if (key == "tool_calls") return Field::tool_calls;
  return Field::other;
}

}  // namespace

Value from_json(const Json& json, Origin origin) {
  return convert(json, origin, 1);
}

Value from_message(const Json& message, int index) {
  const Origin whole{.message = index, .field = Field::other};
  if (!message.is_object()) return from_json(message, whole);
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, value] : message.items()) {
    entries.emplace_back(Value::string(key, whole), from_json(value, {.message = index, .field = field_of(key)}));
  }
  return Value::dict(std::move(entries), whole, index);
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined:
      return "Undefined";
    case Value::Kind::none:
      return "NoneType";
    case Value::Kind::boolean:
      return "bool";
    case Value::Kind::integer:
      return "int";
    case Value::Kind::real:
      return "float";
    case Value::Kind::string:
      return "str";
    case Value::Kind::list:
      return value.as_list().tuple ? "tuple" : "list";
    case Value::Kind::dict:
      return "dict";
    case Value::Kind::name_space:
      return "Namespace";
    case Value::Kind::loop:
      return "LoopContext";
    case Value::Kind::macro:
      return "Macro";
    case Value::Kind::method:
    case Value::Kind::function:
      return "function";
  }
  return "";
}

bool is_hashable(const Value& value) {
  return !value.is_dict() && !(value.is_list() && !value.as_list().tuple);
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined:
    case Value::Kind::none:
      return false;
    case Value::Kind::boolean:
    case Value::Kind::integer:
      return value.as_integral() != 0;
    case Value::Kind::real:
      return value.as_real() != 0;
    case Value::Kind::string:
      return !value.as_str().empty();
    case Value::Kind::list:
      return !value.as_list().items.empty();
    case Value::Kind::dict:
      return !value.as_dict().entries.empty();
    default:
      return true;
  }
}

}  // namespace nibble::text::jinja

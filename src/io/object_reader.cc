#include "io/object_reader.h"

#include <algorithm>

namespace nibble {

ObjectReader::ObjectReader(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {
  if (!json.is_object()) fail(corrupt("{}: expected an object, got {}", where_, json.type_name()));
}

const Json* ObjectReader::value(const char* key) {
  known_.emplace_back(key);
  if (!json_->is_object()) return nullptr;
  const auto found = json_->find(key);
  return found == json_->end() ? nullptr : &*found;
}

void ObjectReader::text(const char* key, std::string& out) {
  const Json* json = value(key);
  if (json == nullptr) return;
  if (!json->is_string()) return expected_of(key, "a text", *json);
  out = json->get<std::string>();
}

void ObjectReader::flag(const char* key, bool& out) {
  const Json* json = value(key);
  if (json == nullptr) return;
  if (!json->is_boolean()) return expected_of(key, "true or false", *json);
  out = json->get<bool>();
}

void ObjectReader::number(const char* key, double low, double high, double& out) {
  const Json* json = value(key);
  if (json == nullptr) return;
  const double got = json->is_number() ? json->get<double>() : low;
  if (!json->is_number() || !(got >= low && got <= high)) {
    return expected_of(key, fmt::format("a number from {} to {}", low, high), *json);
  }
  out = got;
}

std::optional<int64_t> ObjectReader::read_integer(const char* key, int64_t low, int64_t high) {
  const Json* json = value(key);
  if (json == nullptr) return std::nullopt;
  const bool fits =
      json->is_number_integer() && !(json->is_number_unsigned() && json->get<uint64_t>() > static_cast<uint64_t>(high));
  const int64_t got = fits ? json->get<int64_t>() : 0;
  if (fits && got >= low && got <= high) return got;
  expected_of(key, fmt::format("a whole number from {} to {}", low, high), *json);
  return std::nullopt;
}

void ObjectReader::texts(const char* key, std::vector<std::string>& out) {
  const Json* json = value(key);
  if (json == nullptr) return;
  const bool all =
      json->is_array() && std::all_of(json->begin(), json->end(), [](const Json& v) { return v.is_string(); });
  if (!all) return expected_of(key, "a list of texts", *json);
  out = json->get<std::vector<std::string>>();
}

void ObjectReader::require(const char* key) {
  if (!has(key)) fail(corrupt("{}: expected the key \"{}\", got none", where_, key));
}

void ObjectReader::expected_of(const char* key, std::string_view expected, const Json& got) {
  constexpr size_t kShown = 60;
  std::string shown = got.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > kShown) shown = shown.substr(0, kShown) + "…";
  fail(corrupt("{}: {}: expected {}, got {}", where_, key, expected, shown));
}

void ObjectReader::fail(Status error) {
  if (error_.ok()) error_ = std::move(error);
}

Status ObjectReader::finish() {
  if (!error_.ok() || !json_->is_object()) return error_;
  for (const auto& item : json_->items()) {
    if (std::find(known_.begin(), known_.end(), item.key()) != known_.end()) continue;
    return corrupt("{}: expected a key among {}, got \"{}\"", where_, fmt::join(known_, ", "), item.key());
  }
  return {};
}

}  // namespace nibble

#include "serve/field_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace nibble::serve {
namespace {

// Keys are looked up linearly, so a wide object costs its width squared.
constexpr size_t kMaxKeys = 1024;

}  // namespace

std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (!value.is_string()) return dump(value);
  const auto& text = value.get_ref<const std::string&>();
  // dump() replaces the character that a cut may have split.
  return text.size() <= 60 ? dump(value)
                           : fmt::format("{} and {} bytes more", dump(text.substr(0, 60)), text.size() - 60);
}

std::optional<int64_t> as_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto n = value.get<uint64_t>();
    return n <= uint64_t{std::numeric_limits<int64_t>::max()} ? std::optional(static_cast<int64_t>(n)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double n = value.get<double>();
  if (std::abs(n) > 0x1p53 || std::trunc(n) != n) return std::nullopt;
  return static_cast<int64_t>(n);
}

std::optional<ApiError> parse_body(std::string_view body, Json& out) {
  auto parsed = parse_json(body, "body", {.max_depth = 64, .max_keys = kMaxKeys});
  if (!parsed.ok()) return bad_body(parsed.status().message());
  if (!parsed->is_object()) return bad_body(fmt::format("body: expected a JSON object, got {}", shown(*parsed)));
  out = std::move(*parsed);
  return std::nullopt;
}

FieldReader::FieldReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

std::string FieldReader::path(std::string_view name) const {
  return where_.empty() ? std::string(name) : fmt::format("{}.{}", where_, name);
}

const Json* FieldReader::find(std::string_view name) {
  known_.push_back(name);
  if (error_) return nullptr;
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::fail_expected(std::string_view name, std::string_view expected, const Json& got) {
  fail(invalid_value(path(name), fmt::format("expected {}, got {}", expected, shown(got))));
}

void FieldReader::boolean(std::string_view name, bool& out) {
  const Json* value = find(name);
  if (!value) return;
  if (!value->is_boolean()) return fail_expected(name, "true or false", *value);
  out = value->get<bool>();
}

void FieldReader::string(std::string_view name, size_t max_bytes, std::string& out) {
  const Json* value = find(name);
  if (!value) return;
  if (!value->is_string() || value->get_ref<const std::string&>().size() > max_bytes) {
    return fail_expected(name, fmt::format("a string of at most {} bytes", max_bytes), *value);
  }
  out = value->get<std::string>();
}

std::optional<int64_t> FieldReader::read_integer(std::string_view name, int64_t low, int64_t high) {
  const Json* value = find(name);
  if (!value) return std::nullopt;
  const auto n = as_integer(*value);
  if (n && *n >= low && *n <= high) return n;
  const bool open_end = high == std::numeric_limits<int64_t>::max();
  fail_expected(
      name,
      open_end ? fmt::format("an integer of at least {}", low) : fmt::format("an integer from {} to {}", low, high),
      *value);
  return std::nullopt;
}

std::optional<double> FieldReader::read_number(std::string_view name, Range range) {
  const Json* value = find(name);
  if (!value) return std::nullopt;
  if (value->is_number()) {
    const double n = value->get<double>();
    if (n <= range.high && (range.above_low ? n > range.low : n >= range.low)) return n;
  }
  fail_expected(name,
                range.above_low ? fmt::format("a number above {} and up to {}", range.low, range.high)
                                : fmt::format("a number from {} to {}", range.low, range.high),
                *value);
  return std::nullopt;
}

void FieldReader::ignore(std::initializer_list<std::string_view> names) {
  known_.insert(known_.end(), names.begin(), names.end());
}

void FieldReader::refuse(std::initializer_list<std::string_view> names) {
  for (const auto name : names) {
    if (find(name)) fail(not_supported(path(name), "this field"));
  }
}

std::vector<std::string> FieldReader::unknown() const {
  std::vector<std::string> names;
  for (const auto& item : object_.items()) {
    if (std::ranges::find(known_, item.key()) == known_.end()) names.push_back(item.key());
  }
  return names;
}

}  // namespace nibble::serve

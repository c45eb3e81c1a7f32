#include "gate/call_values.h"

#include <algorithm>

#include "io/json_text.h"
#include "text/case_fold.h"
#include "text/examined_text.h"

namespace nibble::gate {
namespace {

// BFCL's standardize_string.
std::string standardized(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view(" ,./-_*^").find(c) == std::string_view::npos) out += c == '\'' ? '"' : c;
  }
  return text::case_fold(out);
}

bool equal(const Json& a, const Json& b) {
  return canonical_json(a) == canonical_json(b);
}

bool equal_scalars(const Json& value, const Json& allowed, Strings strings) {
  if (strings == Strings::loose && value.is_string() && allowed.is_string()) {
    return standardized(value.get_ref<const std::string&>()) == standardized(allowed.get_ref<const std::string&>());
  }
  return equal(value, allowed);
}

bool equal_literals(const Json& value, const Json& allowed, Strings strings) {
  if (!value.is_array() || !allowed.is_array()) return equal_scalars(value, allowed, strings);
  return value.size() == allowed.size() &&
         std::equal(value.begin(), value.end(), allowed.begin(),
                    [&](const Json& v, const Json& a) { return equal_scalars(v, a, strings); });
}

Result<bool> matches_any(const Json& value, const AllowedValues& allowed, Strings strings, bool in_object);

Result<bool> matches_object(const Json& value, const AllowedValue& allowed) {
  if (!value.is_object()) return false;
  for (const auto& [key, each] : value.items()) {
    const auto known = std::find_if(allowed.members.begin(), allowed.members.end(),
                                    [&, &name = key](const auto& m) { return m.first == name; });
    if (known == allowed.members.end()) return false;
    NIBBLE_TRY(fits, matches_any(each, known->second, Strings::loose, true));
    if (!fits) return false;
  }
  return std::all_of(allowed.members.begin(), allowed.members.end(),
                     [&](const auto& m) { return value.contains(m.first) || may_be_missing(m.second); });
}

Result<bool> matches_regex(const Json& value, const text::Pattern& regex) {
  if (!value.is_string()) return regex.matches(compact_json(value));
  NIBBLE_TRY(examined, text::examined_text(value.get_ref<const std::string&>()));
  return regex.matches(examined);
}

Result<bool> matches_one(const Json& value, const AllowedValue& allowed, Strings strings) {
  if (allowed.regex) return matches_regex(value, *allowed.regex);
  if (allowed.schema) {
    NIBBLE_TRY(violation, allowed.schema->violation(value));
    return !violation;
  }
  if (allowed.keyed) return matches_object(value, allowed);
  if (allowed.is_nothing() && value.is_array() && value.empty()) return true;
  if (allowed.elements.empty()) return equal_literals(value, allowed.json, strings);
  if (!value.is_array() || value.size() != allowed.elements.size()) return false;
  for (size_t i = 0; i < value.size(); ++i) {
    NIBBLE_TRY(fits, matches_one(value[i], allowed.elements[i], strings));
    if (!fits) return false;
  }
  return true;
}

Result<bool> matches_any(const Json& value, const AllowedValues& allowed, Strings strings, bool in_object) {
  for (const AllowedValue& each : allowed) {
    // BFCL compares what an object holds by value, all but its strings.
    if (in_object && each.is_literal() && value.is_array()) {
      if (equal(value, each.json)) return true;
      continue;
    }
    NIBBLE_TRY(fits, matches_one(value, each, strings));
    if (fits) return true;
  }
  return false;
}

Result<AllowedValues> read_values(const Json& values, const std::string& where, bool in_object);

// Inside an object other objects are compared by value.
Result<AllowedValue> read_value(const Json& value, const std::string& where, bool in_object) {
  AllowedValue allowed{.json = value};
  if (value.is_array() && !in_object) {
    const bool objects = std::any_of(value.begin(), value.end(), [](const Json& e) { return e.is_object(); });
    for (size_t i = 0; objects && i < value.size(); ++i) {
      NIBBLE_TRY(element, read_value(value[i], where, false));
      allowed.elements.push_back(std::move(element));
    }
  }
  if (!value.is_object()) return allowed;
  if (value.size() == 1 && value.contains("~")) {
    if (!value["~"].is_string()) return corrupt("{}: expected a regular expression, got {}", where, brief_json(value));
    NIBBLE_TRY(regex, text::Pattern::compile(value["~"].get_ref<const std::string&>(), where));
    allowed.regex = std::move(regex);
  } else if (value.size() == 1 && value.contains("schema") && !value["schema"].is_array()) {
    NIBBLE_TRY(schema, JsonSchema::compile(value["schema"], where));
    const std::vector<std::string>& unknown = schema.unknown_keywords();
    if (!unknown.empty()) return corrupt("{}: expected a schema of known keywords, got {}", where, unknown.front());
    allowed.schema = std::move(schema);
  } else if (!in_object) {
    allowed.keyed = true;
    for (const auto& [key, values] : value.items()) {
      NIBBLE_TRY(of_key, read_values(values, fmt::format("{}.{}", where, key), true));
      allowed.members.emplace_back(key, std::move(of_key));
    }
  }
  return allowed;
}

Result<AllowedValues> read_values(const Json& values, const std::string& where, bool in_object) {
  if (!values.is_array() || values.empty()) {
    return corrupt("{}: expected an array of allowed values, got {}", where, brief_json(values));
  }
  AllowedValues allowed;
  for (const Json& value : values) {
    NIBBLE_TRY(one, read_value(value, where, in_object));
    allowed.push_back(std::move(one));
  }
  return allowed;
}

}  // namespace

Result<AllowedValues> read_allowed_values(const Json& values, const std::string& where) {
  return read_values(values, where, false);
}

bool may_be_missing(const AllowedValues& allowed) {
  return std::any_of(allowed.begin(), allowed.end(), [](const AllowedValue& a) { return a.is_nothing(); });
}

Result<bool> is_allowed(const Json& value, const AllowedValues& allowed, Strings strings) {
  return matches_any(value, allowed, strings, false);
}

bool is_allowed_as_text(const Json& value, const AllowedValues& allowed) {
  const auto text_of = [](const Json& json) {
    return standardized(json.is_string() ? json.get<std::string>() : compact_json(json));
  };
  return std::any_of(allowed.begin(), allowed.end(), [&](const AllowedValue& each) {
    return !each.regex && !each.schema && text_of(each.json) == text_of(value);
  });
}

std::string describe(const AllowedValues& allowed) {
  std::string out;
  size_t shown_values = 0;
  for (const AllowedValue& each : allowed) {
    if (each.is_nothing() && allowed.size() > 1) continue;
    if (++shown_values > 5) return out + " or …";
    if (!out.empty()) out += " or ";
    if (each.regex) {
      out += fmt::format("a match of {}", brief_json(each.json.front()));
    } else {
      out += each.schema ? fmt::format("what {} allows", brief_json(each.json.front())) : brief_json(each.json);
    }
  }
  return out.empty() ? "nothing" : out;
}

}  // namespace nibble::gate

#include "gate/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <utility>

#include "io/json_text.h"
#include "text/json_reference.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

constexpr int kMaxDepth = 256;
constexpr int kMaxSteps = 1'000'000;

// What stands under a keyword.
enum class Form : uint8_t {
  annotation,
  type,
  values,
  value,
  schema,
  schemas,
  named_schemas,
  names,
  count,
  number,
  pattern,
  flag,
  reference
};

constexpr std::array<std::pair<std::string_view, Form>, 38> kKeywords = {{
    {"title", Form::annotation},
    {"description", Form::annotation},
    {"default", Form::annotation},
    {"example", Form::annotation},
    {"examples", Form::annotation},
    {"format", Form::annotation},
    {"$comment", Form::annotation},
    {"$schema", Form::annotation},
    {"$id", Form::annotation},
    {"deprecated", Form::annotation},
    {"readOnly", Form::annotation},
    {"writeOnly", Form::annotation},
    {"contentEncoding", Form::annotation},
    {"contentMediaType", Form::annotation},
    {"type", Form::type},
    {"enum", Form::values},
    {"const", Form::value},
    {"items", Form::schema},
    {"not", Form::schema},
    {"additionalProperties", Form::schema},
    {"anyOf", Form::schemas},
    {"oneOf", Form::schemas},
    {"allOf", Form::schemas},
    {"properties", Form::named_schemas},
    {"$defs", Form::named_schemas},
    {"definitions", Form::named_schemas},
    {"required", Form::names},
    {"minLength", Form::count},
    {"maxLength", Form::count},
    {"minItems", Form::count},
    {"maxItems", Form::count},
    {"minimum", Form::number},
    {"maximum", Form::number},
    {"exclusiveMinimum", Form::number},
    {"exclusiveMaximum", Form::number},
    {"pattern", Form::pattern},
    {"uniqueItems", Form::flag},
    {"$ref", Form::reference},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kTypes = {{
    {"null", "null"},
    {"boolean", "boolean"},
    {"integer", "integer"},
    {"number", "number"},
    {"string", "string"},
    {"array", "array"},
    {"object", "object"},
    {"float", "number"},
    {"dict", "object"},
    {"tuple", "array"},
    {"any", "any"},
}};

// The word of JSON Schema for a word of `type`; empty for none.
std::string_view type_named(const Json& word) {
  if (!word.is_string()) return {};
  for (const auto& [known, type] : kTypes) {
    if (word.get_ref<const std::string&>() == known) return type;
  }
  return {};
}

bool has_type(const Json& value, std::string_view type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
  }
  return type == "any";
}

const Json* member(const Json& object, const std::string& key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

std::string pointer_to(const std::string& path, std::string_view key) {
  std::string out = path + '/';
  for (const char c : key) out += c == '~' ? std::string("~0") : c == '/' ? std::string("~1") : std::string(1, c);
  return out;
}

size_t characters(std::string_view text) {
  size_t n = 0;
  for (; !text.empty(); ++n) text.remove_prefix(text::read_utf8(text).size);
  return n;
}

}  // namespace

// Walks all schemas of a document once.
class SchemaCompiler {
 public:
  SchemaCompiler(JsonSchema& out, std::string_view where) : out_(out), where_(where) {}

  Status check(const Json& schema, const std::string& path, int depth = 0) {
    if (depth > kMaxDepth) return wrong(path, "at most 256 levels of schemas", "more");
    if (!seen_.insert(&schema).second || schema.is_boolean()) return {};
    if (!schema.is_object()) return wrong(path, "a schema", schema.type_name());
    for (const auto& [key, value] : schema.items()) {
      NIBBLE_RETURN_IF_ERROR(check_keyword(key, value, pointer_to(path, key), depth));
    }
    return {};
  }

 private:
  Status wrong(const std::string& path, std::string_view expected, std::string_view got) const {
    return corrupt("{}{}: expected {}, got {}", where_, path, expected, got);
  }

  Status check_keyword(const std::string& key, const Json& value, const std::string& path, int depth) {
    const auto found = std::find_if(kKeywords.begin(), kKeywords.end(), [&](const auto& k) { return k.first == key; });
    if (found == kKeywords.end()) {
      out_.unknown_.push_back(path);
      return {};
    }
    const bool number = value.is_number(), natural = value.is_number_integer() && value >= 0;
    switch (found->second) {
      case Form::annotation:
      case Form::value:
        return {};
      case Form::type:
        return check_type(value, path);
      case Form::values:
        return value.is_array() ? Status() : wrong(path, "an array of values", value.type_name());
      case Form::schema:
        return check(value, path, depth + 1);
      case Form::schemas:
        return check_schemas(value, path, depth);
      case Form::named_schemas:
        return check_named(value, path, depth);
      case Form::names:
        return check_names(value, path);
      case Form::count:
        return natural ? Status() : wrong(path, "a whole number from 0 on", brief_json(value));
      case Form::number:
        return number ? Status() : wrong(path, "a number", brief_json(value));
      case Form::pattern:
        return check_pattern(value, path);
      case Form::flag:
        return value.is_boolean() ? Status() : wrong(path, "true or false", brief_json(value));
      case Form::reference:
        break;
    }
    return check_reference(value, path, depth);
  }

  Status check_type(const Json& value, const std::string& path) const {
    const bool several = value.is_array() && !value.empty();
    const bool known =
        several ? std::none_of(value.begin(), value.end(), [](const Json& v) { return type_named(v).empty(); })
                : !type_named(value).empty();
    return known ? Status() : wrong(path, "the name of a type, or several", brief_json(value));
  }

  Status check_schemas(const Json& value, const std::string& path, int depth) {
    if (!value.is_array() || value.empty()) return wrong(path, "an array of schemas", brief_json(value));
    for (size_t i = 0; i < value.size(); ++i) {
      NIBBLE_RETURN_IF_ERROR(check(value[i], fmt::format("{}/{}", path, i), depth + 1));
    }
    return {};
  }

  Status check_named(const Json& value, const std::string& path, int depth) {
    if (!value.is_object()) return wrong(path, "an object of schemas", value.type_name());
    for (const auto& [key, schema] : value.items()) {
      NIBBLE_RETURN_IF_ERROR(check(schema, pointer_to(path, key), depth + 1));
    }
    return {};
  }

  Status check_names(const Json& value, const std::string& path) const {
    const bool names =
        value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); });
    return names ? Status() : wrong(path, "an array of names", brief_json(value));
  }

  Status check_pattern(const Json& value, const std::string& path) {
    if (!value.is_string()) return wrong(path, "a regular expression", brief_json(value));
    const auto& pattern = value.get_ref<const std::string&>();
    NIBBLE_TRY(compiled, text::Pattern::compile(pattern, fmt::format("{}{}", where_, path)));
    out_.patterns_.try_emplace(pattern, std::move(compiled));
    return {};
  }

  Status check_reference(const Json& value, const std::string& path, int depth) {
    const Json* target =
        value.is_string() ? text::resolve_reference(value.get_ref<const std::string&>(), out_.schema_) : nullptr;
    if (target == nullptr) return wrong(path, "a reference into the schema, as \"#/$defs/name\"", brief_json(value));
    return check(*target, path, depth + 1);
  }

  JsonSchema& out_;
  std::string_view where_;
  std::set<const Json*> seen_;
};

// One validation. A violation is text, an absent one is nothing; the Status is for no verdict.
class SchemaRun {
 public:
  using Violation = std::optional<std::string>;

  explicit SchemaRun(const JsonSchema& schema) : schema_(schema) {}

  Result<Violation> check(const Json& schema, const Json& value, const std::string& path) {
    if (depth_ >= kMaxDepth || ++steps_ > kMaxSteps) {
      return unavailable("json schema: expected a verdict within {} levels and {} steps, got none", kMaxDepth,
                         kMaxSteps);
    }
    ++depth_;
    auto result = check_all(schema, value, path);
    --depth_;
    return result;
  }

 private:
  template <class... A>
  static Violation fault(const std::string& path, fmt::format_string<A...> format, A&&... args) {
    const std::string what = fmt::format(format, std::forward<A>(args)...);
    return path.empty() ? what : path + ": " + what;
  }

  Result<Violation> check_all(const Json& schema, const Json& value, const std::string& path) {
    if (schema.is_boolean())
      return schema.get<bool>() ? Violation() : fault(path, "expected no value, got {}", brief_json(value));
    using Check = Result<Violation> (SchemaRun::*)(const Json&, const Json&, const std::string&);
    constexpr std::array<Check, 7> kChecks = {
        &SchemaRun::check_kind,   &SchemaRun::check_number,   &SchemaRun::check_string,   &SchemaRun::check_array,
        &SchemaRun::check_object, &SchemaRun::check_branches, &SchemaRun::check_reference};
    for (const Check each : kChecks) {
      NIBBLE_TRY(violation, (this->*each)(schema, value, path));
      if (violation) return std::move(violation);
    }
    return Violation();
  }

  Result<Violation> check_kind(const Json& schema, const Json& value, const std::string& path) {
    if (const Json* type = member(schema, "type")) {
      const auto fits = [&](const Json& word) { return has_type(value, type_named(word)); };
      const bool right = type->is_array() ? std::any_of(type->begin(), type->end(), fits) : fits(*type);
      if (!right) return fault(path, "expected the type {}, got {}", brief_json(*type), brief_json(value));
    }
    if (const Json* values = member(schema, "enum")) {
      const std::string same = canonical_json(value);
      const bool listed =
          std::any_of(values->begin(), values->end(), [&](const Json& v) { return canonical_json(v) == same; });
      if (!listed) return fault(path, "expected one of {}, got {}", brief_json(*values), brief_json(value));
    }
    const Json* only = member(schema, "const");
    if (only != nullptr && canonical_json(*only) != canonical_json(value)) {
      return fault(path, "expected {}, got {}", brief_json(*only), brief_json(value));
    }
    return Violation();
  }

  Result<Violation> check_number(const Json& schema, const Json& value, const std::string& path) {
    if (!value.is_number()) return Violation();
    const auto number = value.get<double>();
    const auto bound = [&](const char* key) { return member(schema, key); };
    if (const Json* b = bound("minimum"); b != nullptr && !(number >= b->get<double>())) {
      return fault(path, "expected at least {}, got {}", brief_json(*b), brief_json(value));
    }
    if (const Json* b = bound("maximum"); b != nullptr && !(number <= b->get<double>())) {
      return fault(path, "expected at most {}, got {}", brief_json(*b), brief_json(value));
    }
    if (const Json* b = bound("exclusiveMinimum"); b != nullptr && !(number > b->get<double>())) {
      return fault(path, "expected more than {}, got {}", brief_json(*b), brief_json(value));
    }
    if (const Json* b = bound("exclusiveMaximum"); b != nullptr && !(number < b->get<double>())) {
      return fault(path, "expected less than {}, got {}", brief_json(*b), brief_json(value));
    }
    return Violation();
  }

  Violation check_size(const Json& schema, const char* minimum, const char* maximum, size_t size, const char* unit,
                       const std::string& path) const {
    if (const Json* least = member(schema, minimum); least != nullptr && size < least->get<size_t>()) {
      return fault(path, "expected at least {} {}, got {}", brief_json(*least), unit, size);
    }
    if (const Json* most = member(schema, maximum); most != nullptr && size > most->get<size_t>()) {
      return fault(path, "expected at most {} {}, got {}", brief_json(*most), unit, size);
    }
    return {};
  }

  Result<Violation> check_string(const Json& schema, const Json& value, const std::string& path) {
    if (!value.is_string()) return Violation();
    const auto& text = value.get_ref<const std::string&>();
    if (auto violation = check_size(schema, "minLength", "maxLength", characters(text), "characters", path)) {
      return violation;
    }
    if (const Json* pattern = member(schema, "pattern")) {
      NIBBLE_TRY(matches, schema_.patterns_.find(pattern->get_ref<const std::string&>())->second.matches(text));
      if (!matches) return fault(path, "expected a match of {}, got {}", brief_json(*pattern), brief_json(value));
    }
    return Violation();
  }

  Result<Violation> check_array(const Json& schema, const Json& value, const std::string& path) {
    if (!value.is_array()) return Violation();
    if (auto violation = check_size(schema, "minItems", "maxItems", value.size(), "items", path)) return violation;
    if (const Json* unique = member(schema, "uniqueItems"); unique != nullptr && unique->get<bool>()) {
      std::set<std::string> seen;
      for (const Json& item : value) {
        if (!seen.insert(canonical_json(item)).second)
          return fault(path, "expected no item twice, got {}", brief_json(item));
      }
    }
    const Json* items = member(schema, "items");
    for (size_t i = 0; items != nullptr && i < value.size(); ++i) {
      NIBBLE_TRY(violation, check(*items, value[i], fmt::format("{}/{}", path, i)));
      if (violation) return std::move(violation);
    }
    return Violation();
  }

  Result<Violation> check_object(const Json& schema, const Json& value, const std::string& path) {
    if (!value.is_object()) return Violation();
    if (const Json* required = member(schema, "required")) {
      for (const Json& key : *required) {
        const auto& name = key.get_ref<const std::string&>();
        if (!value.contains(name)) return fault(path, "expected the key \"{}\", got none", name);
      }
    }
    const Json* properties = member(schema, "properties");
    const Json* others = member(schema, "additionalProperties");
    for (const auto& [key, each] : value.items()) {
      const Json* own = properties == nullptr ? nullptr : member(*properties, key);
      if (own == nullptr && others != nullptr && others->is_boolean() && !others->get<bool>()) {
        return fault(path, "expected no key \"{}\", got it", key);
      }
      const Json* rule = own != nullptr ? own : others;
      if (rule == nullptr) continue;
      NIBBLE_TRY(violation, check(*rule, each, pointer_to(path, key)));
      if (violation) return std::move(violation);
    }
    return Violation();
  }

  Result<Violation> check_branches(const Json& schema, const Json& value, const std::string& path) {
    if (const Json* all = member(schema, "allOf")) {
      for (const Json& branch : *all) {
        NIBBLE_TRY(violation, check(branch, value, path));
        if (violation) return std::move(violation);
      }
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
      const Json* branches = member(schema, keyword);
      if (branches == nullptr) continue;
      size_t fitting = 0;
      std::string first;
      for (const Json& branch : *branches) {
        NIBBLE_TRY(violation, check(branch, value, path));
        fitting += !violation;
        if (violation && first.empty()) first = *violation;
      }
      if (fitting == 0) return fault(path, "expected what {} allows, got {} ({})", keyword, brief_json(value), first);
      if (fitting > 1 && keyword[0] == 'o') {
        return fault(path, "expected what one of oneOf allows, got {}, which {} do", brief_json(value), fitting);
      }
    }
    if (const Json* forbidden = member(schema, "not")) {
      NIBBLE_TRY(violation, check(*forbidden, value, path));
      if (!violation) return fault(path, "expected another value, got {}", brief_json(value));
    }
    return Violation();
  }

  Result<Violation> check_reference(const Json& schema, const Json& value, const std::string& path) {
    const Json* reference = member(schema, "$ref");
    if (reference == nullptr) return Violation();
    return check(*text::resolve_reference(reference->get_ref<const std::string&>(), schema_.schema_), value, path);
  }

  const JsonSchema& schema_;
  int depth_ = 0, steps_ = 0;
};

Result<JsonSchema> JsonSchema::compile(Json schema, std::string_view where) {
  JsonSchema out;
  out.schema_ = std::move(schema);
  NIBBLE_RETURN_IF_ERROR(SchemaCompiler(out, where).check(out.schema_, ""));
  return out;
}

Result<std::optional<std::string>> JsonSchema::violation(const Json& value) const {
  return SchemaRun(*this).check(schema_, value, "");
}

}  // namespace nibble::gate

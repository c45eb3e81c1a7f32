// The allowed values of one argument of a call (call_match.h says the rules).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "gate/json_schema.h"
#include "io/json.h"
#include "text/pattern.h"

namespace nibble::gate {

/// One of them, as a recipe has it in `json`: a literal, a regex, a schema, an object key by key, or an array with
/// such things in it. Safe from any thread.
struct AllowedValue {
  Json json;
  std::optional<text::Pattern> regex = {};
  std::optional<JsonSchema> schema = {};
  bool keyed = false;  // an object that says for each key what it allows
  std::vector<std::pair<std::string, std::vector<AllowedValue>>> members = {};  // of that object
  std::vector<AllowedValue> elements = {};                                      // of an array with objects in it

  bool is_literal() const { return !regex && !schema && !keyed && elements.empty(); }
  bool is_nothing() const { return json.is_string() && json.get_ref<const std::string&>().empty(); }
};
using AllowedValues = std::vector<AllowedValue>;

/// How strings compare: by BFCL's rule, or letter by letter.
enum class Strings : uint8_t { loose, exact };

/// `corrupt`, beginning with `where`, for what is no array of allowed values.
Result<AllowedValues> read_allowed_values(const Json& values, const std::string& where);

/// Whether "" is among them.
bool may_be_missing(const AllowedValues& allowed);

/// Whether the value is one of them, whatever its type by the tool's schema. Fails where a regex or a schema gives no
/// verdict.
Result<bool> is_allowed(const Json& value, const AllowedValues& allowed, Strings strings);

/// Whether the value, written as text, is one of the literals so written, by the rule for strings.
bool is_allowed_as_text(const Json& value, const AllowedValues& allowed);

/// For a message: "5 or \"tea\" or a match of …".
std::string describe(const AllowedValues& allowed);

}  // namespace nibble::gate

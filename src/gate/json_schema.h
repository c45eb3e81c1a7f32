// Whether a JSON value is what a schema allows: the subset of JSON Schema that tool definitions and expectations use.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/json.h"
#include "text/pattern.h"

namespace nibble::gate {

/// A schema that has been checked. Immutable, safe from any thread.
///
/// Understood: type (one or several), enum, const, properties, required, additionalProperties, items, minItems,
/// maxItems, uniqueItems, minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength (in characters),
/// pattern (PCRE2), anyOf, oneOf, allOf, not, and $ref into the same document ("#/$defs/city"). true and false are
/// schemas, too. As type also float, dict, tuple and any of other languages' tools. Annotations (title, description,
/// default, examples, format, …) say nothing about a value.
class JsonSchema {
 public:
  /// `corrupt` for a schema that is none, `where` names it: an unknown type, a broken pattern, a $ref to nowhere, ….
  static Result<JsonSchema> compile(Json schema, std::string_view where);

  /// Places of keywords that are neither understood nor annotations, as JSON pointers: "/properties/x/multipleOf". What
  /// they ask for is not checked, so whoever relies on the verdict must refuse or report them.
  const std::vector<std::string>& unknown_keywords() const { return unknown_; }

  /// Nothing if the schema allows the value; else the first thing wrong: "/minutes: expected an integer, got \"5\"".
  /// `unavailable` for more than 256 levels of schemas or 1,000,000 steps, as a $ref to itself takes, and for a pattern
  /// at its match limit: no verdict.
  Result<std::optional<std::string>> violation(const Json& value) const;

 private:
  friend class SchemaCompiler;
  friend class SchemaRun;
  JsonSchema() = default;

  Json schema_;
  std::map<std::string, text::Pattern, std::less<>> patterns_;
  std::vector<std::string> unknown_;
};

}  // namespace nibble::gate

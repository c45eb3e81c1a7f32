// XML calls carry raw text; the JSON schema of the tool says which JSON value it means.
//
// The types of a parameter are the union of what stands in its schema under `type` (a word or a list), of the types of
// the values of `enum` and `const`, and of the same over `anyOf`, `oneOf`, `allOf` and local `$ref`. Besides the seven
// words of JSON schema those that tools written for other languages use are known: str, int64, float, dict, list, …
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "io/json.h"

namespace nibble::text {

class TypeSet {
 public:
  enum Type : uint8_t {
    null = 1,
    integer = 2,
    number = 4,
    boolean = 8,
    object = 16,
    array = 32,
    string = 64,
    other = 128,  // a word that is no type we know: any JSON value, else a string
  };
  constexpr TypeSet() = default;
  constexpr TypeSet(Type type) : bits_(type) {}
  void add(Type type) { bits_ |= type; }
  bool has(Type type) const { return (bits_ & type) != 0; }
  bool empty() const { return bits_ == 0; }
  bool operator==(const TypeSet&) const = default;

 private:
  uint8_t bits_ = 0;
};

/// The types of the parameters of one function, by key.
using ParameterTypes = std::map<std::string, TypeSet, std::less<>>;

/// The types that `schema` allows; references are looked up in `root`. Linear in the size of `root`, whatever cycles it
/// has. Empty where nothing is said.
TypeSet schema_types(const Json& schema, const Json& root);

/// Types of all functions of a request's `tools`, [{"type": "function", "function": {"name", "parameters"}}]. What has
/// another form is skipped. Read-only after construction.
class ToolTypes {
 public:
  explicit ToolTypes(const Json& tools);

  /// The types of a function, or null if the request does not have it.
  const ParameterTypes* function(std::string_view name) const;

 private:
  std::map<std::string, ParameterTypes, std::less<>> functions_;
};

/// The JSON text of a raw value. Tried in this order, if among `types`: null, integer, number, boolean, object or
/// array, any JSON; what converts to none of them, like everything of no type, is a JSON string of the value as it is.
/// Blanks around the value count only in a string. Digits are copied, so nothing overflows or loses precision.
std::string convert_value(std::string_view value, TypeSet types);

}  // namespace nibble::text

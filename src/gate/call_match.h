// Whether the calls of a turn are the expected ones, by the rules of the Berkeley Function Calling Leaderboard (BFCL),
// so that public data and our own cases score alike.
//
// An expected call is {"function": {"parameter": [allowed values]}}.
//   * Calls match in any order, and there must be as many as expected: each expected call takes the first call that is
//     left and matches it.
//   * A parameter that is not listed must not be given. One that the tool requires must be given; a listed one, too,
//     unless "" is among its allowed values.
//   * A value has a type that the tool's schema names (dict is object, float is number, tuple is array, any is string);
//     an integer is accepted where a number is due, 5.0 is no integer, and a boolean is no number. Where the first
//     allowed value is of another type than the schema's, as the name of a variable is, its type is accepted, too, and
//     strings compare letter by letter.
//   * Other strings compare without spaces and , . / - _ * ^, without case, and with ' as ". Arrays compare element by
//     element with that rule; "" allows an empty one. An allowed object is {"key": [allowed values]}, with "" among
//     them for a key that may be missing, and no other keys; its strings compare by that rule, all else in it by value.
//     Arrays of objects compare in order. Other things compare by value.
//   * A dot in the name of a function counts as _, which is how it is sent.
// Beyond BFCL, an allowed value may be {"~": "regex"}, searched in the string (in NFC, ’ as '; in the JSON of what is
// no string), or {"schema": {JSON Schema}}, for arguments in free text. Types are checked before either.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"

namespace nibble::gate {

enum class CallFault : uint8_t {
  trigger,  // no call where one was expected, or one where none was
  count,    // another number of calls
  name,     // another function
  missing,  // a parameter that must be given
  extra,    // a parameter that must not
  type,     // a value of another type, or arguments that are no JSON object
  value,
};
const char* name(CallFault fault);

struct CallMismatch {
  CallFault fault;
  std::string message;  // "set_timer.minutes: expected 5, got 15"
};

struct CallRules {
  /// For the Java and JavaScript parts of BFCL, whose values are source text: types are not compared, and values may
  /// also be equal as text, by the rule for strings.
  bool values_as_text = false;
  /// For published data, where a few expected calls can be met by none: a parameter that the tool does not have may
  /// only be left out, a list of allowed values may be empty or hold objects in another form, which allow nothing, and
  /// a parameter that the tool requires may be missing.
  bool unmeetable = false;
};

/// What a turn may call. Immutable, safe from any thread.
class CallExpectation {
 public:
  /// `call` of a recipe: one expected call, or an array of them, all of which must be made. `tools` are the OpenAI tool
  /// definitions of the request. `corrupt`, beginning with `where`, for anything else, a function or a parameter that
  /// the tools do not have, a broken regex or schema, and a schema with keywords that JsonSchema does not know.
  static Result<CallExpectation> all_of(const Json& expected, const Json& tools, std::string_view where,
                                        CallRules rules = {});
  /// `call_any`: exactly one call, which is one of an array of expected ones.
  static Result<CallExpectation> any_of(const Json& expected, const Json& tools, std::string_view where,
                                        CallRules rules = {});
  /// `no_call`.
  static CallExpectation none();
  /// `any_call`: at least one call, of whatever.
  static CallExpectation some();

  /// Nothing if the calls are right; else what is wrong with the first expected call that none of them is, told of the
  /// call that comes nearest. Fails where a regex or schema gives no verdict.
  Result<std::optional<CallMismatch>> mismatch(std::span<const ToolCall> calls) const;

 private:
  struct Data;
  explicit CallExpectation(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

}  // namespace nibble::gate

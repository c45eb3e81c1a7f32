// Value: what a template computes with. Python's types as far as chat templates use them.
//
// Values are immutable and shared; only a namespace can be written to. Strings know the origin of each character, all
// other values the origin of the data they were made from, so that text printed from a number is attributed too.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/json.h"
#include "text/jinja/budget.h"
#include "text/jinja/str.h"

namespace nibble::text::jinja {

class Interpreter;
class Value;
struct CallArgs;
struct Dict;
struct List;
struct Loop;
struct Macro;
struct Method;
struct Namespace;

/// A function of the engine: raise_exception, range, …
struct Function {
  std::string_view name;
  Value (*call)(Interpreter&, const CallArgs&);
};

class Value {
 public:
  /// In the order of the variant below.
  enum class Kind {
    undefined,
    none,
    boolean,
    integer,
    real,
    string,
    list,
    dict,
    name_space,
    loop,
    macro,
    method,
    function
  };

  /// Undefined; `why` is the sentence of the error that using it causes.
  static Value undefined(std::string why);
  static Value none(Origin origin = {}) { return {None{}, origin}; }
  static Value boolean(bool v, Origin origin = {}) { return {v, origin}; }
  static Value integer(int64_t v, Origin origin = {}) { return {v, origin}; }
  static Value real(double v, Origin origin = {}) { return {v, origin}; }
  static Value string(Str v) { return {std::make_shared<const Str>(std::move(v)), {}}; }
  static Value string(std::string v, Origin origin = {}) { return string(Str(std::move(v), origin)); }
  /// Refuses items that are namespaces, loops or macros (they live in scopes only) and nesting beyond kMaxDepth.
  static Value list(std::vector<Value> items, Origin origin = {}, bool tuple = false);
  static Value dict(std::vector<std::pair<Value, Value>> entries, Origin origin = {}, int message = -1);
  // The interpreter owns these and outlives every value.
  static Value name_space(Namespace* v) { return {v, {}}; }
  static Value loop(const Loop* v) { return {v, {}}; }
  static Value macro(const Macro* v) { return {v, {}}; }
  static Value method(Value self, std::string name);
  static Value function(const Function* v) { return {v, {}}; }

  Kind kind() const { return static_cast<Kind>(rep_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_undefined() const { return is(Kind::undefined); }
  bool is_none() const { return is(Kind::none); }
  bool is_string() const { return is(Kind::string); }
  bool is_list() const { return is(Kind::list); }
  bool is_dict() const { return is(Kind::dict); }
  /// bool is an int, as in Python.
  bool is_integral() const { return is(Kind::integer) || is(Kind::boolean); }
  bool is_number() const { return is_integral() || is(Kind::real); }

  const std::string& why_undefined() const;
  bool as_boolean() const { return std::get<bool>(rep_); }
  int64_t as_integral() const { return is(Kind::boolean) ? as_boolean() : std::get<int64_t>(rep_); }
  double as_real() const { return is(Kind::real) ? std::get<double>(rep_) : static_cast<double>(as_integral()); }
  const Str& as_str() const { return *std::get<std::shared_ptr<const Str>>(rep_); }
  const std::string& bytes() const { return as_str().bytes(); }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(rep_); }
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(rep_); }
  Namespace& as_namespace() const { return *std::get<Namespace*>(rep_); }
  const Loop& as_loop() const { return *std::get<const Loop*>(rep_); }
  const Macro& as_macro() const { return *std::get<const Macro*>(rep_); }
  const Method& as_method() const { return *std::get<std::shared_ptr<const Method>>(rep_); }
  const Function& as_function() const { return *std::get<const Function*>(rep_); }

  /// Of the data that this value was made from; strings have an origin per character instead.
  Origin origin() const { return origin_; }

  /// Namespaces, loops and macros may be bound to names and passed on, but not be stored in other values: they would
  /// outlive the scope they point into.
  bool is_storable() const;

 private:
  struct None {};
  using Why = std::shared_ptr<const std::string>;
  using Rep = std::variant<Why, None, bool, int64_t, double, std::shared_ptr<const Str>, std::shared_ptr<const List>,
                           std::shared_ptr<const Dict>, Namespace*, const Loop*, const Macro*,
                           std::shared_ptr<const Method>, const Function*>;
  Value(Rep rep, Origin origin) : rep_(std::move(rep)), origin_(origin) {}

  Rep rep_;
  Origin origin_;
};

/// Containers deeper than this are an error, so recursion over values needs no other limit.
inline constexpr int kMaxDepth = 128;

struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion, keys distinct
  int depth = 1;
  int message = -1;  // messages[message] itself, not a part of it

  /// Null if there is none.
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key, Budget& budget) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  void set(const std::string& name, Value value);
  const Value* find(std::string_view name) const;
};

/// The `loop` variable of a running for.
struct Loop {
  const std::vector<Value>* items;
  size_t index = 0;
  int depth = 1;
};

/// A bound method such as "abc".startswith.
struct Method {
  Value self;
  std::string name;
};

/// Arguments of a call, filter or test.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

/// JSON as a value; every part gets `origin`. Refuses integers beyond int64 and nesting beyond kMaxDepth.
Value from_json(const Json& json, Origin origin);
/// messages[index]: parts get the field of their key, the object itself is marked as that message.
Value from_message(const Json& message, int index);

/// As Python names it: "str", "NoneType", "list", …
std::string_view type_name(const Value& value);
bool truth(const Value& value);
/// Whether it can be a key.
bool is_hashable(const Value& value);

/// Python's str(): strings as they are, undefined as nothing, containers by their repr().
Str to_str(const Value& value, Budget& budget);
Str repr(const Value& value, Budget& budget);
/// repr() of a float: the shortest digits that read back, "1.0", "1e+16", "inf".
std::string format_real(double value);

struct JsonStyle {
  std::optional<std::string> indent;  // one level of it; absent = one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ascii = false;
};
/// json.dumps().
Str to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace nibble::text::jinja

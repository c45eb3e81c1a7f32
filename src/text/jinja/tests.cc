#include "text/jinja/tests.h"

#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/filters.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

using Kind = Value::Kind;

// Tests of the value alone.
template <bool (*kHolds)(const Value&)>
bool plain(const Value& input, const CallArgs& args, Budget&) {
  bind("test", args, {});
  return kHolds(input);
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is(Kind::boolean);
}
bool is_true(const Value& v) {
  return v.is(Kind::boolean) && v.as_boolean();
}
bool is_false(const Value& v) {
  return v.is(Kind::boolean) && !v.as_boolean();
}
bool is_integer(const Value& v) {
  return v.is(Kind::integer);
}
bool is_float(const Value& v) {
  return v.is(Kind::real);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.is_dict();
}

// An undefined value has a length and can be called, as far as Python can see.
bool is_callable(const Value& v) {
  return v.is(Kind::function) || v.is(Kind::macro) || v.is(Kind::method) || v.is_undefined();
}

int64_t whole_number(const Value& v) {
  if (v.is_undefined()) raise("{}", v.why_undefined());
  if (!v.is_integral()) raise("expected an int to test, got a {}", type_name(v));
  return v.as_integral();
}

bool is_odd(const Value& v) {
  return whole_number(v) % 2 != 0;
}
bool is_even(const Value& v) {
  return whole_number(v) % 2 == 0;
}

bool divisible_by(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("divisibleby", args, {"num"}, 1);
  return !truth(arithmetic(Arithmetic::modulo, input, *bound[0], budget));
}

bool equal_to(const Value& input, const CallArgs& args, Budget& budget) {
  return equal(input, *bind("eq", args, {"other"}, 1)[0], budget);
}
bool not_equal_to(const Value& input, const CallArgs& args, Budget& budget) {
  return !equal_to(input, args, budget);
}

bool less_than(const Value& input, const CallArgs& args, Budget& budget) {
  return less(input, *bind("lt", args, {"other"}, 1)[0], "<", budget);
}
bool greater_than(const Value& input, const CallArgs& args, Budget& budget) {
  return less(*bind("gt", args, {"other"}, 1)[0], input, ">", budget);
}
bool at_most(const Value& input, const CallArgs& args, Budget& budget) {
  return less_than(input, args, budget) || equal_to(input, args, budget);
}
bool at_least(const Value& input, const CallArgs& args, Budget& budget) {
  return greater_than(input, args, budget) || equal_to(input, args, budget);
}

bool is_in(const Value& input, const CallArgs& args, Budget& budget) {
  return contains(*bind("in", args, {"seq"}, 1)[0], input, budget);
}

// "is": identity. For the values where it matters, None and the booleans, it is equality of the same type.
bool same_as(const Value& input, const CallArgs& args, Budget& budget) {
  const Value& other = *bind("sameas", args, {"other"}, 1)[0];
  return input.kind() == other.kind() && equal(input, other, budget);
}

constexpr Test kTests[] = {
    {"!=", not_equal_to},
    {"<", less_than},
    {"<=", at_most},
    {"==", equal_to},
    {">", greater_than},
    {">=", at_least},
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", divisible_by},
    {"eq", equal_to},
    {"equalto", equal_to},
    {"even", plain<is_even>},
    {"false", plain<is_false>},
    {"float", plain<is_float>},
    {"ge", at_least},
    {"greaterthan", greater_than},
    {"gt", greater_than},
    {"in", is_in},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", at_most},
    {"lessthan", less_than},
    {"lt", less_than},
    {"mapping", plain<is_mapping>},
    {"ne", not_equal_to},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", plain<is_odd>},
    {"sameas", same_as},
    {"sequence", plain<is_iterable>},
    {"string", plain<is_string>},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  for (const Test& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

}  // namespace nibble::text::jinja

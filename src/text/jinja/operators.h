// Python's operators on values. Every function throws jinja::Error with Python's own sentence where Python would raise.
#pragma once

#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// ==. Numbers compare across types, containers by their parts, undefined only with undefined.
bool equal(const Value& a, const Value& b, Budget& budget);
/// a < b; `symbol` is the operator that stands in the template, for the error.
bool less(const Value& a, const Value& b, std::string_view symbol, Budget& budget);
/// a in b.
bool contains(const Value& container, const Value& item, Budget& budget);

enum class Arithmetic { add, subtract, multiply, divide, floor_divide, modulo, power };
Value arithmetic(Arithmetic op, const Value& a, const Value& b, Budget& budget);
Value negate(const Value& value);
/// ~: str() of both, joined.
Str concatenate(const Str& a, const Str& b, Budget& budget);

/// The values that a for loop or a filter visits: items, keys of a mapping, characters of a string; undefined has none.
std::vector<Value> iterate(const Value& value, Budget& budget);
bool is_iterable(const Value& value);
/// len().
int64_t length(const Value& value);

}  // namespace nibble::text::jinja

// Methods of strings, lists and mappings that a template may call, by Python's rules. None of them changes its object.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

bool has_method(const Value& object, std::string_view name);
/// A method of the type that Python's sandbox refuses because it writes: append, pop, update, …
bool is_mutating_method(const Value& object, std::string_view name);
Value call_method(const Method& method, const CallArgs& args, Budget& budget);

// Shared with the filters.

/// (key, value) tuples of a mapping.
Value dict_items(const Value& dict, Budget& budget);
/// str.replace; `count` < 0 = all. An empty `old` stands before every character and at the end.
Str replace_text(const Str& text, const Str& old, const Str& fresh, int64_t count, Budget& budget);
Str join_text(const Str& separator, const std::vector<Str>& parts, Budget& budget);

}  // namespace nibble::text::jinja

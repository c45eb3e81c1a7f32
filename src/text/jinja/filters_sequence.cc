#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/filter_groups.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"

namespace nibble::text::jinja {
namespace {

Value default_value(const Value& input, const CallArgs& args, Budget&) {
  const auto bound = bind("default", args, {"default_value", "boolean"});
  const bool absent = input.is_undefined() || (truth_or(bound[1], false) && !truth(input));
  if (!absent) return input;
  return bound[0] != nullptr ? *bound[0] : Value::string("");
}

Value count(const Value& input, const CallArgs& args, Budget& budget) {
  bind("length", args, {});
  if (input.is_string()) budget.text(input.as_str().size());
  return Value::integer(length(input));
}

Value first(const Value& input, const CallArgs& args, Budget& budget) {
  bind("first", args, {});
  std::vector<Value> items = iterate(input, budget);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(const Value& input, const CallArgs& args, Budget& budget) {
  bind("last", args, {});
  std::vector<Value> items = iterate(input, budget);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list(const Value& input, const CallArgs& args, Budget& budget) {
  bind("list", args, {});
  return Value::list(iterate(input, budget), input.origin());
}

Value reverse(const Value& input, const CallArgs& args, Budget& budget) {
  bind("reverse", args, {});
  if (input.is_string()) return slice(input, std::nullopt, std::nullopt, -1, budget);
  std::vector<Value> items = iterate(input, budget);
  std::reverse(items.begin(), items.end());
  return Value::list(std::move(items), input.origin());
}

Value items(const Value& input, const CallArgs& args, Budget& budget) {
  bind("items", args, {});
  if (input.is_undefined()) return Value::list({});
  if (!input.is_dict()) raise("Can only get item pairs from a mapping.");
  return dict_items(input, budget);
}

Value join(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("join", args, {"d", "attribute"});
  const Str separator = bound[0] != nullptr ? to_str(*bound[0], budget) : Str();
  std::vector<Str> parts;
  for (const Value& item : iterate(input, budget)) {
    const bool by_attribute = bound[1] != nullptr && !bound[1]->is_none();
    parts.push_back(to_str(by_attribute ? get_path(item, *bound[1], budget) : item, budget));
  }
  return Value::string(join_text(separator, parts, budget));
}

// What sort, unique and dictsort compare: strings without regard to case unless asked otherwise.
Value sort_key(const Value& value, bool case_sensitive) {
  return value.is_string() && !case_sensitive ? Value::string(change_case(value.as_str(), Case::lower)) : value;
}

// Stable, by the first of each pair.
std::vector<Value> sorted(std::vector<std::pair<Value, Value>> keyed, bool descending, Budget& budget) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return descending ? less(b.first, a.first, "<", budget) : less(a.first, b.first, "<", budget);
  });
  std::vector<Value> values;
  for (auto& [key, value] : keyed) values.push_back(std::move(value));
  return values;
}

Value attribute_key(const Value& item, const Value* attribute, bool case_sensitive, Budget& budget) {
  const bool whole = attribute == nullptr || attribute->is_none();
  return sort_key(whole ? item : get_path(item, *attribute, budget), case_sensitive);
}

Value sort(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : iterate(input, budget)) {
    keyed.emplace_back(attribute_key(item, bound[2], truth_or(bound[1], false), budget), item);
  }
  return Value::list(sorted(std::move(keyed), truth_or(bound[0], false), budget), input.origin());
}

Value unique(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("unique", args, {"case_sensitive", "attribute"});
  std::vector<Value> seen, kept;
  for (const Value& item : iterate(input, budget)) {
    Value key = attribute_key(item, bound[1], truth_or(bound[0], false), budget);
    const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return equal(s, key, budget); });
    if (known) continue;
    seen.push_back(std::move(key));
    kept.push_back(item);
  }
  return Value::list(std::move(kept), input.origin());
}

Value dict_sort(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("dictsort", args, {"case_sensitive", "by", "reverse"});
  if (input.is_undefined()) raise("{}", input.why_undefined());
  if (!input.is_dict()) raise("'{} object' has no attribute 'items'", type_name(input));
  const std::string by = bound[1] != nullptr ? string_of(*bound[1]).bytes() : "key";
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  std::vector<std::pair<Value, Value>> keyed;
  const Value pairs = dict_items(input, budget);
  for (const Value& pair : pairs.as_list().items) {
    keyed.emplace_back(sort_key(pair.as_list().items[by == "key" ? 0 : 1], truth_or(bound[0], false)), pair);
  }
  return Value::list(sorted(std::move(keyed), truth_or(bound[2], false), budget), input.origin());
}

// Arguments after the first one.
CallArgs rest_of(const CallArgs& args) {
  CallArgs rest = args;
  rest.positional.erase(rest.positional.begin());
  return rest;
}

Value map_attribute(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("map", args, {"attribute", "default"}, 1);
  std::vector<Value> result;
  for (const Value& item : iterate(input, budget)) {
    Value value = get_path(item, *bound[0], budget);
    if (value.is_undefined() && bound[1] != nullptr) value = *bound[1];
    result.push_back(std::move(value));
  }
  return Value::list(std::move(result), input.origin());
}

// map("upper") applies a filter, map(attribute="x") takes a part of each item.
Value map(const Value& input, const CallArgs& args, Budget& budget) {
  if (args.positional.empty()) return map_attribute(input, args, budget);
  const std::string& name = string_of(args.positional[0]).bytes();
  const Filter* filter = find_filter(name);
  if (filter == nullptr) raise("no filter named '{}'", name);
  const CallArgs rest = rest_of(args);
  const Budget::Level level(budget);
  std::vector<Value> result;
  for (const Value& item : iterate(input, budget)) result.push_back(filter->apply(item, rest, budget));
  return Value::list(std::move(result), input.origin());
}

// The items for which a test on `part(item)` comes out as `wanted`; without a test, truth is tested.
template <class Part>
Value choose(const Value& input, CallArgs args, bool wanted, Budget& budget, Part part) {
  const Test* test = nullptr;
  if (!args.positional.empty()) {
    const std::string& name = string_of(args.positional[0]).bytes();
    test = find_test(name);
    if (test == nullptr) raise("no test named '{}'", name);
    args = rest_of(args);
  }
  std::vector<Value> result;
  for (const Value& item : iterate(input, budget)) {
    budget.step();
    const Value tested = part(item);
    if ((test != nullptr ? test->holds(tested, args, budget) : truth(tested)) == wanted) result.push_back(item);
  }
  return Value::list(std::move(result), input.origin());
}

template <bool kWanted>
Value select(const Value& input, const CallArgs& args, Budget& budget) {
  return choose(input, args, kWanted, budget, [](const Value& item) { return item; });
}

template <bool kWanted>
Value select_attribute(const Value& input, const CallArgs& args, Budget& budget) {
  if (args.positional.empty()) raise("expected the name of an attribute, got no argument");
  const Value& path = args.positional[0];
  return choose(input, rest_of(args), kWanted, budget, [&](const Value& item) { return get_path(item, path, budget); });
}

constexpr Filter kSequenceFilters[] = {
    {"count", count},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dict_sort},
    {"first", first},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", count},
    {"list", list},
    {"map", map},
    {"reject", select<false>},
    {"rejectattr", select_attribute<false>},
    {"reverse", reverse},
    {"select", select<true>},
    {"selectattr", select_attribute<true>},
    {"sort", sort},
    {"unique", unique},
};

}  // namespace

std::span<const Filter> sequence_filters() {
  return kSequenceFilters;
}

}  // namespace nibble::text::jinja

#include "text/jinja/methods.h"

#include <algorithm>

#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

using Apply = Value (*)(const Value& self, const CallArgs& args, Budget& budget);
struct Entry {
  std::string_view name;
  Apply apply;
};

// None as an argument means: not given.
const Value* given(const Value* argument) {
  return argument != nullptr && !argument->is_none() ? argument : nullptr;
}

Value strip_side(std::string_view name, Side side, const Value& self, const CallArgs& args) {
  const Value* characters = given(bind(name, args, {"chars"})[0]);
  std::optional<std::string_view> set;
  if (characters != nullptr) set = string_of(*characters).bytes();
  return Value::string(strip(self.as_str(), side, set));
}
Value strip_both(const Value& self, const CallArgs& args, Budget&) {
  return strip_side("strip", Side::both, self, args);
}
Value strip_left(const Value& self, const CallArgs& args, Budget&) {
  return strip_side("lstrip", Side::left, self, args);
}
Value strip_right(const Value& self, const CallArgs& args, Budget&) {
  return strip_side("rstrip", Side::right, self, args);
}

Value text_list(std::vector<Str> parts, Budget& budget) {
  budget.step(parts.size());
  std::vector<Value> items;
  for (Str& part : parts) items.push_back(Value::string(std::move(part)));
  return Value::list(std::move(items));
}

Value split_from(std::string_view name, Side side, const Value& self, const CallArgs& args, Budget& budget) {
  const auto bound = bind(name, args, {"sep", "maxsplit"});
  const Value* separator = given(bound[0]);
  std::optional<std::string_view> text;
  if (separator != nullptr) text = string_of(*separator).bytes();
  if (text && text->empty()) raise("empty separator");
  budget.step(text ? static_cast<uint64_t>(std::count(self.bytes().begin(), self.bytes().end(), (*text)[0]))
                   : self.as_str().size() / 2);
  return text_list(split(self.as_str(), text, integer_or(bound[1], -1), side), budget);
}
Value split_left(const Value& self, const CallArgs& args, Budget& budget) {
  return split_from("split", Side::left, self, args, budget);
}
Value split_right(const Value& self, const CallArgs& args, Budget& budget) {
  return split_from("rsplit", Side::right, self, args, budget);
}
Value split_into_lines(const Value& self, const CallArgs& args, Budget& budget) {
  const bool keep = truth_or(bind("splitlines", args, {"keepends"})[0], false);
  return text_list(split_lines(self.as_str(), keep), budget);
}

// The part of the text between code points `start` and `stop`, as bytes [begin, end); false if start lies behind it.
bool window(const Value& self, const Value* start, const Value* stop, size_t& begin, size_t& end) {
  const int64_t n = length(self);
  const auto place = [n](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n); };
  const int64_t first = start != nullptr ? integer_or(start, 0) : 0, last = stop != nullptr ? integer_or(stop, n) : n;
  if (first > n) return false;
  begin = byte_offset(self.bytes(), static_cast<size_t>(place(first)));
  end = byte_offset(self.bytes(), static_cast<size_t>(place(last)));
  return begin <= end;
}

template <class Matches>
Value affix(std::string_view name, const Value& self, const CallArgs& args, Budget& budget, Matches matches) {
  const auto bound = bind(name, args, {"prefix", "start", "end"}, 1);
  budget.text(self.as_str().size());
  size_t begin = 0, end = 0;
  if (!window(self, given(bound[1]), given(bound[2]), begin, end)) return Value::boolean(false);
  const std::string_view text = std::string_view(self.bytes()).substr(begin, end - begin);
  if (!bound[0]->is_list()) return Value::boolean(matches(text, string_of(*bound[0]).bytes()));
  const auto& options = bound[0]->as_list().items;
  return Value::boolean(
      std::any_of(options.begin(), options.end(), [&](const Value& o) { return matches(text, string_of(o).bytes()); }));
}
Value starts_with(const Value& self, const CallArgs& args, Budget& budget) {
  return affix("startswith", self, args, budget,
               [](std::string_view t, const std::string& p) { return t.starts_with(p); });
}
Value ends_with(const Value& self, const CallArgs& args, Budget& budget) {
  return affix("endswith", self, args, budget, [](std::string_view t, const std::string& p) { return t.ends_with(p); });
}

// Index of a code point, or -1.
int64_t find_index(std::string_view name, const Value& self, const CallArgs& args, bool from_right) {
  const auto bound = bind(name, args, {"sub", "start", "end"}, 1);
  const std::string& part = string_of(*bound[0]).bytes();
  size_t begin = 0, end = 0;
  if (!window(self, given(bound[1]), given(bound[2]), begin, end)) return -1;
  const std::string_view text = std::string_view(self.bytes()).substr(begin, end - begin);
  const size_t hit = from_right ? text.rfind(part) : text.find(part);
  if (hit == std::string_view::npos) return -1;
  return static_cast<int64_t>(length(std::string_view(self.bytes()).substr(0, begin + hit)));
}
Value find(const Value& self, const CallArgs& args, Budget& budget) {
  budget.text(self.as_str().size());
  return Value::integer(find_index("find", self, args, false));
}
Value find_right(const Value& self, const CallArgs& args, Budget& budget) {
  budget.text(self.as_str().size());
  return Value::integer(find_index("rfind", self, args, true));
}
Value index(const Value& self, const CallArgs& args, Budget& budget) {
  budget.text(self.as_str().size());
  const int64_t i = find_index("index", self, args, false);
  if (i < 0) raise("substring not found");
  return Value::integer(i);
}

Value count(const Value& self, const CallArgs& args, Budget& budget) {
  const auto bound = bind("count", args, {"sub", "start", "end"}, 1);
  budget.text(self.as_str().size());
  const std::string& part = string_of(*bound[0]).bytes();
  size_t begin = 0, end = 0;
  if (!window(self, given(bound[1]), given(bound[2]), begin, end)) return Value::integer(0);
  const std::string_view text = std::string_view(self.bytes()).substr(begin, end - begin);
  if (part.empty()) return Value::integer(static_cast<int64_t>(length(text)) + 1);
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++n;
  return Value::integer(n);
}

Value replace(const Value& self, const CallArgs& args, Budget& budget) {
  const auto bound = bind("replace", args, {"old", "new", "count"}, 2);
  return Value::string(
      replace_text(self.as_str(), string_of(*bound[0]), string_of(*bound[1]), integer_or(bound[2], -1), budget));
}

Value remove_prefix(const Value& self, const CallArgs& args, Budget&) {
  const Str& affix = string_of(*bind("removeprefix", args, {"prefix"}, 1)[0]);
  if (!self.bytes().starts_with(affix.bytes())) return self;
  return Value::string(self.as_str().slice(affix.size(), self.as_str().size()));
}
Value remove_suffix(const Value& self, const CallArgs& args, Budget&) {
  const Str& affix = string_of(*bind("removesuffix", args, {"suffix"}, 1)[0]);
  if (!self.bytes().ends_with(affix.bytes())) return self;
  return Value::string(self.as_str().slice(0, self.as_str().size() - affix.size()));
}

Value join(const Value& self, const CallArgs& args, Budget& budget) {
  const Value& parts = *bind("join", args, {"iterable"}, 1)[0];
  std::vector<Str> texts;
  for (const Value& part : iterate(parts, budget)) {
    if (!part.is_string()) {
      raise("sequence item {}: expected str instance, {} found", texts.size(), type_name(part));
    }
    texts.push_back(part.as_str());
  }
  return Value::string(join_text(self.as_str(), texts, budget));
}

template <class Change>
Value changed(std::string_view name, const Value& self, const CallArgs& args, Budget& budget, Change change) {
  bind(name, args, {});
  budget.text(self.as_str().size());
  return Value::string(change(self.as_str()));
}
Value upper(const Value& self, const CallArgs& args, Budget& budget) {
  return changed("upper", self, args, budget, [](const Str& s) { return change_case(s, Case::upper); });
}
Value lower(const Value& self, const CallArgs& args, Budget& budget) {
  return changed("lower", self, args, budget, [](const Str& s) { return change_case(s, Case::lower); });
}
Value title(const Value& self, const CallArgs& args, Budget& budget) {
  return changed("title", self, args, budget, title_words);
}
Value capitalize_method(const Value& self, const CallArgs& args, Budget& budget) {
  return changed("capitalize", self, args, budget, capitalize);
}

Value dict_get(const Value& self, const CallArgs& args, Budget& budget) {
  const auto bound = bind("get", args, {"key", "default"}, 1);
  if (const Value* found = self.as_dict().find(*bound[0], budget)) return *found;
  return bound[1] != nullptr ? *bound[1] : Value::none();
}
Value dict_items_method(const Value& self, const CallArgs& args, Budget& budget) {
  bind("items", args, {});
  return dict_items(self, budget);
}
Value dict_keys(const Value& self, const CallArgs& args, Budget& budget) {
  bind("keys", args, {});
  return Value::list(iterate(self, budget), self.origin());
}
Value dict_values(const Value& self, const CallArgs& args, Budget& budget) {
  bind("values", args, {});
  budget.step(self.as_dict().entries.size());
  std::vector<Value> values;
  for (const auto& [key, value] : self.as_dict().entries) values.push_back(value);
  return Value::list(std::move(values), self.origin());
}

Value copy(const Value& self, const CallArgs& args, Budget&) {
  bind("copy", args, {});
  return self;
}

Value list_index(const Value& self, const CallArgs& args, Budget& budget) {
  const Value& item = *bind("index", args, {"value"}, 1)[0];
  const auto& items = self.as_list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(items[i], item, budget)) return Value::integer(static_cast<int64_t>(i));
  }
  raise("{} is not in list", repr(item, budget).bytes());
}
Value list_count(const Value& self, const CallArgs& args, Budget& budget) {
  const Value& item = *bind("count", args, {"value"}, 1)[0];
  const auto& items = self.as_list().items;
  return Value::integer(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(v, item, budget); }));
}

constexpr Entry kStringMethods[] = {
    {"capitalize", capitalize_method},
    {"count", count},
    {"endswith", ends_with},
    {"find", find},
    {"index", index},
    {"join", join},
    {"lower", lower},
    {"lstrip", strip_left},
    {"removeprefix", remove_prefix},
    {"removesuffix", remove_suffix},
    {"replace", replace},
    {"rfind", find_right},
    {"rsplit", split_right},
    {"rstrip", strip_right},
    {"split", split_left},
    {"splitlines", split_into_lines},
    {"startswith", starts_with},
    {"strip", strip_both},
    {"title", title},
    {"upper", upper},
};
constexpr Entry kDictMethods[] = {
    {"copy", copy}, {"get", dict_get}, {"items", dict_items_method}, {"keys", dict_keys}, {"values", dict_values}};
constexpr Entry kListMethods[] = {{"copy", copy}, {"count", list_count}, {"index", list_index}};

Apply find_method(const Value& object, std::string_view name) {
  const auto search = [name](const auto& table) -> Apply {
    for (const Entry& entry : table) {
      if (entry.name == name) return entry.apply;
    }
    return nullptr;
  };
  if (object.is_string()) return search(kStringMethods);
  if (object.is_dict()) return search(kDictMethods);
  if (object.is_list()) return search(kListMethods);
  return nullptr;
}

}  // namespace

bool has_method(const Value& object, std::string_view name) {
  return find_method(object, name) != nullptr;
}

bool is_mutating_method(const Value& object, std::string_view name) {
  constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  constexpr std::string_view kList[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  if (object.is_dict()) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  if (object.is_list() && !object.as_list().tuple)
    return std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
  return false;
}

Value call_method(const Method& method, const CallArgs& args, Budget& budget) {
  return find_method(method.self, method.name)(method.self, args, budget);
}

Value dict_items(const Value& dict, Budget& budget) {
  budget.step(dict.as_dict().entries.size());
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict.as_dict().entries) {
    pairs.push_back(Value::list({key, value}, dict.origin(), /*tuple=*/true));
  }
  return Value::list(std::move(pairs), dict.origin());
}

Str replace_text(const Str& text, const Str& old, const Str& fresh, int64_t count, Budget& budget) {
  budget.text(text.size());
  const std::string& bytes = text.bytes();
  Str result;
  size_t kept = 0;  // text before it is in the result
  for (size_t at = 0; count != 0; --count) {
    const size_t hit = old.empty() ? at : bytes.find(old.bytes(), at);
    if (hit == std::string::npos || hit > bytes.size()) break;
    budget.step();
    if (result.size() + fresh.size() > budget.limits().output_bytes) budget.text(result.size() + fresh.size());
    result.append(text, kept, hit);
    result.append(fresh);
    kept = hit + old.size();
    // Past the match, or past the one character that an empty `old` stood before.
    at = !old.empty() ? kept : hit + (hit < bytes.size() ? code_point_at(bytes, hit).size : 1);
  }
  result.append(text, kept, bytes.size());
  budget.text(result.size());
  return result;
}

Str join_text(const Str& separator, const std::vector<Str>& parts, Budget& budget) {
  size_t size = 0;
  for (const Str& part : parts) size += part.size() + separator.size();
  budget.text(size);
  Str result;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) result.append(separator);
    result.append(parts[i]);
  }
  return result;
}

}  // namespace nibble::text::jinja

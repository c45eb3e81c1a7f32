#include "text/jinja/access.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/error.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

using Kind = Value::Kind;

Value missing_attribute(const Value& object, std::string_view name) {
  const std::string type = object.is_none() ? "None" : fmt::format("{} object", type_name(object));
  return Value::undefined(fmt::format("'{}' has no attribute '{}'", type, name));
}

Value missing_element(const Value& object, const Value& key, Budget& budget) {
  return Value::undefined(fmt::format("{} object has no element {}", type_name(object), repr(key, budget).bytes()));
}

Value loop_attribute(const Value& object, const std::string& name) {
  const Loop& loop = object.as_loop();
  const auto n = static_cast<int64_t>(loop.items->size()), i = static_cast<int64_t>(loop.index);
  if (name == "index") return Value::integer(i + 1);
  if (name == "index0") return Value::integer(i);
  if (name == "revindex") return Value::integer(n - i);
  if (name == "revindex0") return Value::integer(n - i - 1);
  if (name == "first") return Value::boolean(i == 0);
  if (name == "last") return Value::boolean(i == n - 1);
  if (name == "length") return Value::integer(n);
  if (name == "depth") return Value::integer(loop.depth);
  if (name == "depth0") return Value::integer(loop.depth - 1);
  if (name == "previtem") {
    return i > 0 ? (*loop.items)[loop.index - 1] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return i + 1 < n ? (*loop.items)[loop.index + 1] : Value::undefined("there is no next item");
  }
  return missing_attribute(object, name);
}

// The item at `index` of a list or string, counted from the end if negative; null if there is none.
std::optional<Value> element(const Value& object, int64_t index, Budget& budget) {
  const int64_t n = length(object);
  if (index < 0) index += n;
  if (index < 0 || index >= n) return std::nullopt;
  if (object.is_list()) return object.as_list().items[static_cast<size_t>(index)];
  budget.step(object.as_str().size() / 64);
  const size_t begin = byte_offset(object.bytes(), static_cast<size_t>(index));
  return Value::string(object.as_str().slice(begin, begin + code_point_at(object.bytes(), begin).size));
}

}  // namespace

Value get_attribute(const Value& object, const std::string& name, Budget& budget) {
  if (object.is_undefined()) raise("{}", object.why_undefined());
  if (has_method(object, name)) return Value::method(object, name);
  if (is_mutating_method(object, name)) {
    return Value::undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
  }
  const Value* found = nullptr;
  if (object.is(Kind::loop)) return loop_attribute(object, name);
  if (object.is(Kind::name_space)) found = object.as_namespace().find(name);
  if (object.is_dict()) {
    budget.step(object.as_dict().entries.size() / 16);
    found = object.as_dict().find(name);
  }
  return found != nullptr ? *found : missing_attribute(object, name);
}

Value get_item(const Value& object, const Value& key, Budget& budget) {
  if (object.is_undefined()) raise("{}", object.why_undefined());
  if (object.is_dict() && is_hashable(key)) {
    if (const Value* found = object.as_dict().find(key, budget)) return *found;
  } else if ((object.is_list() || object.is_string()) && key.is_integral()) {
    if (auto found = element(object, key.as_integral(), budget)) return *found;
  }
  if (key.is_string()) return get_attribute(object, key.bytes(), budget);
  return missing_element(object, key, budget);
}

Value get_path(const Value& object, const Value& path, Budget& budget) {
  if (!path.is_string()) return get_item(object, path, budget);
  Value value = object;
  for (const Str& part : split(path.as_str(), ".", -1, Side::left)) {
    const std::string& text = part.bytes();
    int64_t index = 0;
    const auto number = std::from_chars(text.data(), text.data() + text.size(), index);
    const bool is_index =
        !text.empty() && text[0] != '-' && number.ec == std::errc() && number.ptr == text.data() + text.size();
    value = get_item(value, is_index ? Value::integer(index) : Value::string(text), budget);
  }
  return value;
}

Value slice(const Value& object, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step,
            Budget& budget) {
  if (object.is_undefined()) raise("{}", object.why_undefined());
  if (!object.is_list() && !object.is_string()) raise("'{}' object is not subscriptable", type_name(object));
  if (step == 0) raise("slice step cannot be zero");
  const int64_t n = length(object);
  // Python's rule: a missing bound is the far end in the direction of the step; others count from the end if negative.
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
  const auto bound = [&](std::optional<int64_t> b, int64_t otherwise) {
    if (!b) return otherwise;
    return std::clamp(*b < 0 ? *b + n : *b, low, high);
  };
  const int64_t first = bound(start, step > 0 ? low : high), last = bound(stop, step > 0 ? high : low);
  if (object.is_string() && step == 1) {
    budget.text(object.as_str().size());
    const size_t begin = byte_offset(object.bytes(), static_cast<size_t>(first));
    const size_t end = byte_offset(object.bytes(), static_cast<size_t>(std::max(first, last)));
    return Value::string(object.as_str().slice(begin, end));
  }
  budget.step(static_cast<uint64_t>(n));
  // A step beyond the ends visits one item; without the clamp the sum could overflow.
  const int64_t stride = std::clamp(step, -n - 1, n + 1);
  const std::vector<Value> items = iterate(object, budget);
  std::vector<Value> result;
  for (int64_t i = first; step > 0 ? i < last : i > last; i += stride) result.push_back(items[static_cast<size_t>(i)]);
  if (object.is_list()) return Value::list(std::move(result), object.origin(), object.as_list().tuple);
  Str text;
  for (const Value& character : result) text.append(character.as_str());
  return Value::string(std::move(text));
}

void DictBuilder::set(Value key, Value value) {
  if (!is_hashable(key)) raise("unhashable type: '{}'", type_name(key));
  budget_.step(entries_.size() / 16);
  for (auto& [k, v] : entries_) {
    if (equal(k, key, budget_)) {
      v = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

}  // namespace nibble::text::jinja

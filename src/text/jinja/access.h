// Attributes, items and slices of values: what "a.b", "a[b]" and "a[b:c:d]" mean.
#pragma once

#include <optional>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

/// a.name: a method or property of the type first, then the item of that name; undefined if there is neither.
Value get_attribute(const Value& object, const std::string& name, Budget& budget);
/// a[key]: the item first, then, for a string, the attribute.
Value get_item(const Value& object, const Value& key, Budget& budget);
/// "a.b.0" as filters take it: each part is an item of what is before it.
Value get_path(const Value& object, const Value& path, Budget& budget);
Value slice(const Value& object, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step,
            Budget& budget);

/// Collects entries; a key that comes again replaces the value at its first place.
class DictBuilder {
 public:
  explicit DictBuilder(Budget& budget) : budget_(budget) {}
  void set(Value key, Value value);
  Value take(Origin origin = {}) { return Value::dict(std::move(entries_), origin); }

 private:
  Budget& budget_;
  std::vector<std::pair<Value, Value>> entries_;
};

}  // namespace nibble::text::jinja

#include <algorithm>

#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/filter_groups.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

// Filters on text take any value and work on its str().
Str text_of(const Value& input, Budget& budget) {
  Str text = to_str(input, budget);
  budget.text(text.size());
  return text;
}

Value trim(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("trim", args, {"chars"});
  std::optional<std::string_view> characters;
  if (bound[0] != nullptr && !bound[0]->is_none()) characters = string_of(*bound[0]).bytes();
  return Value::string(strip(text_of(input, budget), Side::both, characters));
}

Value upper(const Value& input, const CallArgs& args, Budget& budget) {
  bind("upper", args, {});
  return Value::string(change_case(text_of(input, budget), Case::upper));
}

Value lower(const Value& input, const CallArgs& args, Budget& budget) {
  bind("lower", args, {});
  return Value::string(change_case(text_of(input, budget), Case::lower));
}

Value capitalize_filter(const Value& input, const CallArgs& args, Budget& budget) {
  bind("capitalize", args, {});
  return Value::string(capitalize(text_of(input, budget)));
}

bool begins_word_after(int32_t c) {
  return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

// Other than str.title(), the filter sees words only behind white space and opening signs: "it's" -> "It's".
Value title(const Value& input, const CallArgs& args, Budget& budget) {
  bind("title", args, {});
  const Str text = text_of(input, budget);
  Str result;
  for (size_t begin = 0, i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text.bytes(), i);
    i += c.size;
    if (i == text.size() || (begins_word_after(c.value) && !begins_word_after(code_point_at(text.bytes(), i).value))) {
      result.append(capitalize(text.slice(begin, i)));
      begin = i;
    }
  }
  return Value::string(std::move(result));
}

Value replace(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("replace", args, {"old", "new", "count"}, 2);
  const bool all = bound[2] == nullptr || bound[2]->is_none();
  return Value::string(replace_text(text_of(input, budget), text_of(*bound[0], budget), text_of(*bound[1], budget),
                                    all ? -1 : integer_or(bound[2], -1), budget));
}

Str indentation(const Value* width, Budget& budget) {
  if (width != nullptr && width->is_string()) return width->as_str();
  const int64_t n = integer_or(width, 4);
  if (n <= 0) return {};
  budget.text(static_cast<size_t>(n));
  return {std::string(static_cast<size_t>(n), ' '), {}};
}

Value indent(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("indent", args, {"width", "first", "blank"});
  const Str margin = indentation(bound[0], budget);
  const bool first = truth_or(bound[1], false), blank = truth_or(bound[2], false);
  Str text = text_of(input, budget);
  text.append("\n", {});  // so that a final newline is kept
  const std::vector<Str> lines = split_lines(text, /*keep_ends=*/false);
  budget.text(text.size() + lines.size() * margin.size());
  Str result;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result.append("\n", {});
    if (i == 0 ? first : blank || !lines[i].empty()) result.append(margin);
    result.append(lines[i]);
  }
  return Value::string(std::move(result));
}

Value string(const Value& input, const CallArgs& args, Budget& budget) {
  bind("string", args, {});
  return Value::string(to_str(input, budget));
}

// Templates render plain text, so there is nothing to mark as safe.
Value safe(const Value& input, const CallArgs& args, Budget& budget) {
  bind("safe", args, {});
  return Value::string(to_str(input, budget));
}

// transformers' own tojson: json.dumps without HTML escapes.
Value to_json_filter(const Value& input, const CallArgs& args, Budget& budget) {
  const auto bound = bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = truth_or(bound[0], false);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    style.indent = indentation(bound[1], budget).bytes();
    style.item_separator.resize(1);  // the space goes: a line break follows
  }
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const bool pair = bound[2]->is_list() && bound[2]->as_list().items.size() == 2;
    if (!pair) raise("tojson: expected separators (item, key), got a {}", type_name(*bound[2]));
    style.item_separator = string_of(bound[2]->as_list().items[0]).bytes();
    style.key_separator = string_of(bound[2]->as_list().items[1]).bytes();
  }
  style.sort_keys = truth_or(bound[3], false);
  return Value::string(to_json(input, style, budget));
}

constexpr Filter kTextFilters[] = {
    {"capitalize", capitalize_filter},
    {"indent", indent},
    {"lower", lower},
    {"replace", replace},
    {"safe", safe},
    {"string", string},
    {"title", title},
    {"tojson", to_json_filter},
    {"trim", trim},
    {"upper", upper},
};

}  // namespace

std::span<const Filter> text_filters() {
  return kTextFilters;
}

}  // namespace nibble::text::jinja

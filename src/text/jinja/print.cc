// str(), repr() and json.dumps() of values, with the origin of every character.
#include <charconv>
#include <cmath>

#include "text/jinja/error.h"
#include "text/jinja/value.h"

#include <utf8proc.h>

namespace nibble::text::jinja {
namespace {

// What repr() shows as it is: Python's str.isprintable().
bool is_printable(int32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string repr_code_point(int32_t c, std::string_view bytes, char quote) {
  if (c == quote || c == '\\') return fmt::format("\\{}", static_cast<char>(c));
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c >= 0 && is_printable(c)) return std::string(bytes);
  if (c < 0) return fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[0]));
  if (c < 0x100) return fmt::format("\\x{:02x}", c);
  return c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
}

std::string json_code_point(int32_t c, std::string_view bytes, bool ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (c >= 0 && c < 0x20) return fmt::format("\\u{:04x}", c);
  if (!ascii || (c >= 0 && c < 0x80)) return std::string(bytes);
  if (c < 0) return "\\ufffd";
  if (c < 0x10000) return fmt::format("\\u{:04x}", c);
  return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
}

// Appends `text`, each code point through `escape`, keeping the origins.
template <class Escape>
void append_escaped(Str& out, const Str& text, Escape escape) {
  size_t i = 0;
  for (const Str::Run& run : text.runs()) {
    std::string escaped;
    while (i < run.end) {
      const CodePoint c = code_point_at(text.bytes(), i);
      escaped += escape(c.value, std::string_view(text.bytes()).substr(i, c.size));
      i += c.size;
    }
    out.append(escaped, run.origin);
  }
}

// The quotes belong to whoever wrote the first character.
Origin quote_origin(const Str& text, Origin fallback) {
  return text.empty() ? fallback : text.origin_at(0);
}

void append_quoted(Str& out, const Str& text, Origin structure) {
  const bool has_single = text.bytes().find('\'') != std::string::npos;
  const char quote = has_single && text.bytes().find('"') == std::string::npos ? '"' : '\'';
  const Origin origin = quote_origin(text, structure);
  out.append(std::string_view(&quote, 1), origin);
  append_escaped(out, text, [quote](int32_t c, std::string_view bytes) { return repr_code_point(c, bytes, quote); });
  out.append(std::string_view(&quote, 1), origin);
}

void append_repr(Str& out, const Value& value, Origin structure, Budget& budget);

void append_list(Str& out, const Value& value, Budget& budget) {
  const List& list = value.as_list();
  const Origin origin = value.origin();
  out.append(list.tuple ? "(" : "[", origin);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(", ", origin);
    append_repr(out, list.items[i], origin, budget);
  }
  out.append(list.tuple ? (list.items.size() == 1 ? ",)" : ")") : "]", origin);
}

void append_dict(Str& out, const Value& value, Budget& budget) {
  const Origin origin = value.origin();
  out.append("{", origin);
  bool first = true;
  for (const auto& [key, item] : value.as_dict().entries) {
    if (!std::exchange(first, false)) out.append(", ", origin);
    append_repr(out, key, origin, budget);
    out.append(": ", origin);
    append_repr(out, item, origin, budget);
  }
  out.append("}", origin);
}

// null, true, false differ between Python and JSON; numbers do not.
std::string number_text(const Value& value) {
  return value.is(Value::Kind::real) ? format_real(value.as_real()) : fmt::format("{}", value.as_integral());
}

void append_repr(Str& out, const Value& value, Origin structure, Budget& budget) {
  budget.step();
  budget.text(out.size());
  switch (value.kind()) {
    case Value::Kind::undefined:
      return out.append("Undefined", structure);
    case Value::Kind::none:
      return out.append("None", value.origin());
    case Value::Kind::boolean:
      return out.append(value.as_boolean() ? "True" : "False", value.origin());
    case Value::Kind::integer:
    case Value::Kind::real:
      return out.append(number_text(value), value.origin());
    case Value::Kind::string:
      budget.text(value.as_str().size());
      return append_quoted(out, value.as_str(), structure);
    case Value::Kind::list:
      return append_list(out, value, budget);
    case Value::Kind::dict:
      return append_dict(out, value, budget);
    default:
      raise("expected a value that can be printed, got a {}", type_name(value));
  }
}

// json.dumps() of one value.
class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, Origin structure) {
    budget_.step();
    switch (value.kind()) {
      case Value::Kind::none:
        return put("null", value.origin());
      case Value::Kind::boolean:
        return put(value.as_boolean() ? "true" : "false", value.origin());
      case Value::Kind::integer:
        return put(number_text(value), value.origin());
      case Value::Kind::real:
        return put(json_real(value.as_real()), value.origin());
      case Value::Kind::string:
        return write_string(value.as_str(), structure);
      case Value::Kind::list:
        return write_list(value);
      case Value::Kind::dict:
        return write_dict(value);
      default:
        raise("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  Str take() { return std::move(out_); }

 private:
  static std::string json_real(double v) {
    if (std::isnan(v)) return "NaN";
    if (std::isinf(v)) return v < 0 ? "-Infinity" : "Infinity";
    return format_real(v);
  }

  void put(std::string_view text, Origin origin) {
    out_.append(text, origin);
    if (out_.size() > budget_.limits().output_bytes) budget_.text(out_.size());
  }

  void write_string(const Str& text, Origin structure) {
    budget_.text(text.size());
    const Origin origin = quote_origin(text, structure);
    put("\"", origin);
    append_escaped(out_, text,
                   [this](int32_t c, std::string_view bytes) { return json_code_point(c, bytes, style_.ascii); });
    put("\"", origin);
  }

  void write_key(const Value& key, Origin structure) {
    if (key.is_string()) return write_string(key.as_str(), structure);
    if (key.is_none() || key.is_number()) {
      put("\"", structure);
      write(key, structure);
      return put("\"", structure);
    }
    raise("keys must be str, int, float, bool or None, not {}", type_name(key));
  }

  void new_line(Origin origin) {
    if (!style_.indent) return;
    budget_.text(static_cast<size_t>(level_) * style_.indent->size());
    std::string text = "\n";
    for (int i = 0; i < level_; ++i) text += *style_.indent;
    put(text, origin);
  }

  // The space after a comma is replaced by the line break where there is one.
  void separate(bool first, Origin origin) {
    if (!first) put(style_.item_separator, origin);
    new_line(origin);
  }

  void write_list(const Value& value) {
    const auto& items = value.as_list().items;
    if (items.empty()) return put("[]", value.origin());
    put("[", value.origin());
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i == 0, value.origin());
      write(items[i], value.origin());
    }
    --level_;
    new_line(value.origin());
    put("]", value.origin());
  }

  void write_dict(const Value& value) {
    const auto& entries = value.as_dict().entries;
    if (entries.empty()) return put("{}", value.origin());
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& entry : entries) order.push_back(&entry);
    if (style_.sort_keys) sort_by_key(order);
    put("{", value.origin());
    ++level_;
    for (size_t i = 0; i < order.size(); ++i) {
      separate(i == 0, value.origin());
      write_key(order[i]->first, value.origin());
      put(style_.key_separator, value.origin());
      write(order[i]->second, value.origin());
    }
    --level_;
    new_line(value.origin());
    put("}", value.origin());
  }

  void sort_by_key(std::vector<const std::pair<Value, Value>*>& order) {
    budget_.step(order.size());
    for (const auto* entry : order) {
      if (!entry->first.is_string()) raise("sort_keys: expected string keys, got a {}", type_name(entry->first));
    }
    std::sort(order.begin(), order.end(),
              [](const auto* a, const auto* b) { return a->first.bytes() < b->first.bytes(); });
  }

  const JsonStyle& style_;
  Budget& budget_;
  Str out_;
  int level_ = 0;
};

}  // namespace

std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(), exponent);
  // Python changes to the exponent form below 1e-4 and from 1e16 on.
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02d}", text.substr(0, e), exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string result(buffer, fixed.ptr);
  if (result.find('.') == std::string::npos) result += ".0";
  return result;
}

Str repr(const Value& value, Budget& budget) {
  Str out;
  append_repr(out, value, value.origin(), budget);
  budget.text(out.size());
  return out;
}

Str to_str(const Value& value, Budget& budget) {
  if (value.is_string()) return value.as_str();
  if (value.is_undefined()) return {};
  return repr(value, budget);
}

Str to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, value.origin());
  return writer.take();
}

}  // namespace nibble::text::jinja

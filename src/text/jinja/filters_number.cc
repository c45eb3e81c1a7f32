#include <charconv>
#include <cmath>
#include <limits>

#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/filter_groups.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

// Python's int(text, base) and float(text): white space around, a sign, underscores between digits.
std::string number_characters(const Value& input) {
  const Str text = strip(input.as_str(), Side::both, std::nullopt);
  std::string characters = text.bytes();
  if (!characters.empty() && characters[0] == '+') characters.erase(0, 1);
  for (size_t i = 1; i + 1 < characters.size(); ++i) {
    if (characters[i] == '_' && characters[i - 1] != '_' && characters[i + 1] != '_') characters.erase(i--, 1);
  }
  return characters;
}

std::optional<int64_t> parse_integer(std::string text, int64_t base) {
  const size_t sign = !text.empty() && text[0] == '-';
  const std::string_view prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : "";
  if (!prefix.empty() && text.compare(sign, 2, prefix) == 0) text.erase(sign, 2);
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, static_cast<int>(base));
  if (text.empty() || result.ptr != text.data() + text.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) raise("expected integers of at most 64 bits, got {}", text);
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<double> parse_real(const std::string& text) {
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || result.ptr != text.data() + text.size()) return std::nullopt;
  // Too large or too small for a double: Python gives inf or 0.
  if (result.ec == std::errc::result_out_of_range) return std::strtod(text.c_str(), nullptr);
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

// int(x) of a float: towards zero. Absent for inf and NaN.
std::optional<int64_t> truncate(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) >= 0x1p63) raise("expected integers of at most 64 bits, got {}", format_real(value));
  return static_cast<int64_t>(value);
}

Value to_int(const Value& input, const CallArgs& args, Budget&) {
  const auto bound = bind("int", args, {"default", "base"});
  const int64_t base = integer_or(bound[1], 10);
  if (base < 2 || base > 36) raise("int() base must be >= 2 and <= 36");
  if (input.is_undefined()) raise("{}", input.why_undefined());
  std::optional<int64_t> value;
  if (input.is_integral()) value = input.as_integral();
  if (input.is(Value::Kind::real)) value = truncate(input.as_real());
  if (input.is_string()) {
    const std::string text = number_characters(input);
    value = parse_integer(text, base);
    if (!value) {
      if (const auto real = parse_real(text)) value = truncate(*real);
    }
  }
  if (value) return Value::integer(*value, input.origin());
  return bound[0] != nullptr ? *bound[0] : Value::integer(0);
}

Value to_float(const Value& input, const CallArgs& args, Budget&) {
  const auto bound = bind("float", args, {"default"});
  if (input.is_undefined()) raise("{}", input.why_undefined());
  if (input.is_number()) return Value::real(input.as_real(), input.origin());
  if (input.is_string()) {
    if (const auto value = parse_real(number_characters(input))) return Value::real(*value);
  }
  return bound[0] != nullptr ? *bound[0] : Value::real(0);
}

Value absolute(const Value& input, const CallArgs& args, Budget&) {
  bind("abs", args, {});
  if (input.is_undefined()) raise("{}", input.why_undefined());
  if (!input.is_number()) raise("bad operand type for abs(): '{}'", type_name(input));
  if (input.is_integral()) return input.as_integral() < 0 ? negate(input) : Value::integer(input.as_integral());
  return Value::real(std::abs(input.as_real()));
}

// Python's round(x, n): half to even on the exact decimal value, which is what printing with n digits does too.
double round_decimal(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 20) return value;
  if (digits >= 0) return std::strtod(fmt::format("{:.{}f}", value, digits).c_str(), nullptr);
  if (digits < -308) return 0;
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

Value round(const Value& input, const CallArgs& args, Budget&) {
  const auto bound = bind("round", args, {"precision", "method"});
  const int64_t digits = integer_or(bound[0], 0);
  const std::string method = bound[1] != nullptr ? string_of(*bound[1]).bytes() : "common";
  if (input.is_undefined()) raise("{}", input.why_undefined());
  if (!input.is_number()) raise("type {} doesn't define __round__ method", type_name(input));
  if (method == "common") {
    if (input.is_integral() && digits >= 0) return Value::integer(input.as_integral());
    return Value::real(round_decimal(input.as_real(), digits));
  }
  if (method != "ceil" && method != "floor") raise("method must be common, ceil or floor");
  const double unit = std::pow(10.0, static_cast<double>(digits)), scaled = input.as_real() * unit;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

constexpr Filter kNumberFilters[] = {{"abs", absolute}, {"float", to_float}, {"int", to_int}, {"round", round}};

}  // namespace

std::span<const Filter> number_filters() {
  return kNumberFilters;
}

}  // namespace nibble::text::jinja

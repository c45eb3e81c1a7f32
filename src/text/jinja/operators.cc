#include "text/jinja/operators.h"

#include <cmath>
#include <limits>

#include "text/jinja/error.h"

namespace nibble::text::jinja {
namespace {

using Kind = Value::Kind;

std::string_view symbol_of(Arithmetic op) {
  switch (op) {
    case Arithmetic::add:
      return "+";
    case Arithmetic::subtract:
      return "-";
    case Arithmetic::multiply:
      return "*";
    case Arithmetic::divide:
      return "/";
    case Arithmetic::floor_divide:
      return "//";
    case Arithmetic::modulo:
      return "%";
    case Arithmetic::power:
      return "** or pow()";
  }
  return "";
}

[[noreturn]] void raise_too_large() {
  raise("expected integers of at most 64 bits, got a larger result");
}

void require_defined(const Value& value) {
  if (value.is_undefined()) raise("{}", value.why_undefined());
}

bool equal_lists(const List& a, const List& b, Budget& budget) {
  if (a.tuple != b.tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equal(a.items[i], b.items[i], budget)) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key, budget);
    if (other == nullptr || !equal(value, *other, budget)) return false;
  }
  return true;
}

// A long double holds every int64, where a double would round a large one.
long double exact(const Value& v) {
  return v.is_integral() ? static_cast<long double>(v.as_integral()) : v.as_real();
}

}  // namespace

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  if (a.is_number() && b.is_number()) return exact(a) == exact(b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.bytes() == b.bytes();
    case Kind::list:
      return equal_lists(a.as_list(), b.as_list(), budget);
    case Kind::dict:
      return equal_dicts(a.as_dict(), b.as_dict(), budget);
    case Kind::name_space:
      return &a.as_namespace() == &b.as_namespace();
    case Kind::loop:
      return &a.as_loop() == &b.as_loop();
    case Kind::macro:
      return &a.as_macro() == &b.as_macro();
    case Kind::function:
      return &a.as_function() == &b.as_function();
    default:
      return false;
  }
}

bool less(const Value& a, const Value& b, std::string_view symbol, Budget& budget) {
  budget.step();
  require_defined(a);
  require_defined(b);
  if (a.is_number() && b.is_number()) return exact(a) < exact(b);
  // Byte order of UTF-8 is the order of the code points.
  if (a.is_string() && b.is_string()) return a.bytes() < b.bytes();
  if (a.is_list() && b.is_list() && a.as_list().tuple == b.as_list().tuple) {
    const auto &x = a.as_list().items, &y = b.as_list().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i], budget)) return less(x[i], y[i], symbol, budget);
    }
    return x.size() < y.size();
  }
  raise("'{}' not supported between instances of '{}' and '{}'", symbol, type_name(a), type_name(b));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.kind()) {
    case Kind::string:
      if (!item.is_string()) {
        raise("'in <string>' requires string as left operand, not {}", type_name(item));
      }
      budget.step(container.as_str().size() / 64);
      return container.bytes().find(item.bytes()) != std::string::npos;
    case Kind::list:
      for (const Value& candidate : container.as_list().items) {
        if (equal(candidate, item, budget)) return true;
      }
      return false;
    case Kind::dict:
      return container.as_dict().find(item, budget) != nullptr;
    case Kind::undefined:
      return false;
    default:
      raise("argument of type '{}' is not iterable", type_name(container));
  }
}

namespace {

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) raise("integer division or modulo by zero");
  if (b == -1) {
    if (a == std::numeric_limits<int64_t>::min()) raise_too_large();
    return -a;
  }
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == 0) raise("integer modulo by zero");
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) raise_too_large();
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) raise_too_large();
  }
}

Value integer_arithmetic(Arithmetic op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Arithmetic::add:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Arithmetic::subtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Arithmetic::multiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Arithmetic::divide:
      if (b == 0) raise("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Arithmetic::floor_divide:
      return Value::integer(floor_divide(a, b));
    case Arithmetic::modulo:
      return Value::integer(floor_modulo(a, b));
    case Arithmetic::power:
      if (b < 0) {
        if (a == 0) raise("0.0 cannot be raised to a negative power");
        return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
      }
      return Value::integer(integer_power(a, b));
  }
  if (overflow) raise_too_large();
  return Value::integer(result);
}

Value real_arithmetic(Arithmetic op, double a, double b) {
  const bool divides = op == Arithmetic::divide || op == Arithmetic::floor_divide || op == Arithmetic::modulo;
  if (divides && b == 0) raise("float division by zero");
  switch (op) {
    case Arithmetic::add:
      return Value::real(a + b);
    case Arithmetic::subtract:
      return Value::real(a - b);
    case Arithmetic::multiply:
      return Value::real(a * b);
    case Arithmetic::divide:
      return Value::real(a / b);
    case Arithmetic::floor_divide:
      return Value::real(std::floor(a / b));
    case Arithmetic::modulo: {
      const double rest = std::fmod(a, b);
      return Value::real(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
    case Arithmetic::power:
      if (a < 0 && b != std::floor(b)) raise("expected a real result, got a complex one");
      return Value::real(std::pow(a, b));
  }
  return Value::real(0);
}

// How often the sequence stands in the product; the check comes before the memory.
size_t repetitions(size_t size, int64_t count, size_t limit) {
  if (count <= 0 || size == 0) return 0;
  if (static_cast<uint64_t>(count) > limit / size) raise("expected a repetition of at most {} units, got more", limit);
  return static_cast<size_t>(count);
}

Value repeat(const Value& sequence, int64_t count, Budget& budget) {
  if (sequence.is_string()) {
    const Str& text = sequence.as_str();
    const size_t n = repetitions(text.size(), count, budget.limits().output_bytes);
    budget.text(n * text.size());
    Str result;
    for (size_t i = 0; i < n; ++i) result.append(text);
    return Value::string(std::move(result));
  }
  const auto& items = sequence.as_list().items;
  const size_t n = repetitions(items.size(), count, budget.limits().steps);
  budget.step(n * items.size());
  std::vector<Value> result;
  for (size_t i = 0; i < n; ++i) result.insert(result.end(), items.begin(), items.end());
  return Value::list(std::move(result), sequence.origin(), sequence.as_list().tuple);
}

Value add_lists(const Value& a, const Value& b, Budget& budget) {
  const auto &x = a.as_list().items, &y = b.as_list().items;
  budget.step(x.size() + y.size());
  std::vector<Value> items = x;
  items.insert(items.end(), y.begin(), y.end());
  return Value::list(std::move(items), a.origin(), a.as_list().tuple);
}

bool is_sequence(const Value& v) {
  return v.is_string() || v.is_list();
}

}  // namespace

Value arithmetic(Arithmetic op, const Value& a, const Value& b, Budget& budget) {
  require_defined(a);
  require_defined(b);
  if (a.is_integral() && b.is_integral()) return integer_arithmetic(op, a.as_integral(), b.as_integral());
  if (a.is_number() && b.is_number()) return real_arithmetic(op, a.as_real(), b.as_real());
  if (op == Arithmetic::add) {
    if (a.is_string() && b.is_string()) return Value::string(concatenate(a.as_str(), b.as_str(), budget));
    if (a.is_list() && b.is_list() && a.as_list().tuple == b.as_list().tuple) return add_lists(a, b, budget);
    if (is_sequence(a)) {
      raise("can only concatenate {} (not \"{}\") to {}", type_name(a), type_name(b), type_name(a));
    }
  }
  if (op == Arithmetic::multiply) {
    if (is_sequence(a) && b.is_integral()) return repeat(a, b.as_integral(), budget);
    if (is_sequence(b) && a.is_integral()) return repeat(b, a.as_integral(), budget);
    if (is_sequence(a) || is_sequence(b)) {
      raise("can't multiply sequence by non-int of type '{}'", type_name(is_sequence(a) ? b : a));
    }
  }
  if (op == Arithmetic::modulo && a.is_string()) raise_unsupported("%: formatting with % is not supported, use ~");
  raise("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(op), type_name(a), type_name(b));
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is_integral()) return integer_arithmetic(Arithmetic::subtract, 0, value.as_integral());
  if (value.is(Kind::real)) return Value::real(-value.as_real());
  raise("bad operand type for unary -: '{}'", type_name(value));
}

Str concatenate(const Str& a, const Str& b, Budget& budget) {
  budget.text(a.size() + b.size());
  Str result = a;
  result.append(b);
  return result;
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::undefined:
      break;
    case Kind::list:
      budget.step(value.as_list().items.size() / 8);
      return value.as_list().items;
    case Kind::dict:
      budget.step(value.as_dict().entries.size() / 8);
      for (const auto& [key, item] : value.as_dict().entries) items.push_back(key);
      break;
    case Kind::string:
      budget.step(value.as_str().size());
      for (size_t i = 0; i < value.as_str().size();) {
        const size_t size = code_point_at(value.bytes(), i).size;
        items.push_back(Value::string(value.as_str().slice(i, i + size)));
        i += size;
      }
      break;
    default:
      raise("'{}' object is not iterable", type_name(value));
  }
  return items;
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_list() || value.is_dict();
}

int64_t length(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      return static_cast<int64_t>(length(value.bytes()));
    case Kind::list:
      return static_cast<int64_t>(value.as_list().items.size());
    case Kind::dict:
      return static_cast<int64_t>(value.as_dict().entries.size());
    default:
      raise("object of type '{}' has no len()", type_name(value));
  }
}

}  // namespace nibble::text::jinja

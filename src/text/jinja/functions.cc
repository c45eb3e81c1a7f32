#include "text/jinja/functions.h"

#include "text/jinja/access.h"
#include "text/jinja/arguments.h"
#include "text/jinja/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {
namespace {

Value raise_exception(Interpreter& interpreter, const CallArgs& args) {
  const auto bound = bind("raise_exception", args, {"message"}, 1);
  raise("{}", to_str(*bound[0], interpreter.budget()).bytes());
}

Value range(Interpreter& interpreter, const CallArgs& args) {
  const auto bound = bind("range", args, {"start", "stop", "step"}, 1);
  const bool single = bound[1] == nullptr;
  const int64_t start = single ? 0 : integer_or(bound[0], 0), stop = integer_or(single ? bound[0] : bound[1], 0);
  const int64_t step = integer_or(bound[2], 1);
  if (step == 0) raise("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    interpreter.budget().step();
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::list(std::move(items));
}

// An optional mapping, then keyword arguments.
template <class Set>
void for_each_entry(std::string_view callee, const CallArgs& args, Set set) {
  if (args.positional.size() > 1) raise("{}() takes at most 1 positional argument", callee);
  if (!args.positional.empty()) {
    if (!args.positional[0].is_dict())
      raise("{}(): expected a mapping, got a {}", callee, type_name(args.positional[0]));
    for (const auto& [key, value] : args.positional[0].as_dict().entries) set(key, value);
  }
  for (const auto& [name, value] : args.named) set(Value::string(std::string(name)), value);
}

Value make_namespace(Interpreter& interpreter, const CallArgs& args) {
  Value result = interpreter.new_namespace();
  for_each_entry("namespace", args, [&](const Value& key, const Value& value) {
    interpreter.budget().step();
    result.as_namespace().set(string_of(key).bytes(), value);
  });
  return result;
}

Value make_dict(Interpreter& interpreter, const CallArgs& args) {
  DictBuilder dict(interpreter.budget());
  for_each_entry("dict", args, [&](const Value& key, const Value& value) { dict.set(key, value); });
  return dict.take();
}

constexpr Function kFunctions[] = {
    {"dict", make_dict},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"range", range},
};

}  // namespace

const Function* find_function(std::string_view name) {
  for (const Function& function : kFunctions) {
    if (function.name == name) return &function;
  }
  return nullptr;
}

}  // namespace nibble::text::jinja

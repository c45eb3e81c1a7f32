#include "text/jinja/access.h"
#include "text/jinja/error.h"
#include "text/jinja/filters.h"
#include "text/jinja/functions.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/tests.h"

namespace nibble::text::jinja {

using ExprKind = Expr::Kind;

Value Interpreter::eval(const Expr& expr) {
  const Budget::Level level(budget_);
  budget_.step();
  // When something below throws, line_ stays at the innermost expression that was not finished.
  const int outside = std::exchange(line_, expr.line);
  Value value = eval_node(expr);
  line_ = outside;
  return value;
}

Value Interpreter::eval_node(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::constant:
      return expr.value;
    case ExprKind::name:
      return lookup(expr.name);
    case ExprKind::list:
    case ExprKind::tuple:
      return Value::list(eval_all(expr.parts), {}, expr.kind == ExprKind::tuple);
    case ExprKind::dict:
      return eval_dict(expr);
    case ExprKind::negate:
      return negate(eval(*expr.parts[0]));
    case ExprKind::plus:
      return negate(negate(eval(*expr.parts[0])));
    case ExprKind::logical_not:
      return Value::boolean(!truth(eval(*expr.parts[0])));
    case ExprKind::logical_and:
    case ExprKind::logical_or: {
      Value left = eval(*expr.parts[0]);
      return truth(left) == (expr.kind == ExprKind::logical_or) ? left : eval(*expr.parts[1]);
    }
    case ExprKind::arithmetic:
      return eval_arithmetic(expr);
    case ExprKind::concat:
      return eval_concat(expr);
    case ExprKind::compare:
      return eval_compare(expr);
    case ExprKind::conditional:
      if (truth(eval(*expr.parts[1]))) return eval(*expr.parts[0]);
      if (expr.parts[2] != nullptr) return eval(*expr.parts[2]);
      return Value::undefined(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
    case ExprKind::attribute:
      return get_attribute(eval(*expr.parts[0]), expr.name, budget_);
    case ExprKind::item:
      return get_item(eval(*expr.parts[0]), eval(*expr.parts[1]), budget_);
    case ExprKind::slice:
      return eval_slice(expr);
    case ExprKind::call: {
      const Value callee = eval(*expr.parts[0]);
      return call(callee, eval_arguments(expr.arguments));
    }
    case ExprKind::filter:
      return eval_filter(expr);
    case ExprKind::test:
      return eval_test(expr);
  }
  return Value::none();
}

Value Interpreter::lookup(const std::string& name) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [n, value] : scope->names) {
      if (n == name) return value;
    }
  }
  if (const Function* function = find_function(name)) return Value::function(function);
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

Value Interpreter::eval_arithmetic(const Expr& expr) {
  const Value left = eval(*expr.parts[0]), right = eval(*expr.parts[1]);
  if (expr.op == "+" && left.is_string() && right.is_string()) {
    Str text = concatenate(left.as_str(), right.as_str(), budget_);
    text.stamp_turn(turn_);
    return Value::string(std::move(text));
  }
  const Arithmetic op = expr.op == "+"    ? Arithmetic::add
                        : expr.op == "-"  ? Arithmetic::subtract
                        : expr.op == "*"  ? Arithmetic::multiply
                        : expr.op == "/"  ? Arithmetic::divide
                        : expr.op == "//" ? Arithmetic::floor_divide
                        : expr.op == "%"  ? Arithmetic::modulo
                                          : Arithmetic::power;
  return arithmetic(op, left, right, budget_);
}

Value Interpreter::eval_concat(const Expr& expr) {
  Str text;
  for (const ExprPtr& part : expr.parts) {
    const Str piece = to_str(eval(*part), budget_);
    budget_.text(text.size() + piece.size());
    text.append(piece);
  }
  text.stamp_turn(turn_);
  return Value::string(std::move(text));
}

Value Interpreter::eval_compare(const Expr& expr) {
  Value left = eval(*expr.parts[0]);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.parts[i + 1]);
    if (!compare(expr.ops[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

bool Interpreter::compare(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(a, b, budget_);
  if (op == "!=") return !equal(a, b, budget_);
  if (op == "in") return contains(b, a, budget_);
  if (op == "not in") return !contains(b, a, budget_);
  // a <= b is "less or equal" and not "not b < a": NaN is neither.
  if (op == "<") return less(a, b, op, budget_);
  if (op == ">") return less(b, a, op, budget_);
  return op == "<=" ? less(a, b, op, budget_) || equal(a, b, budget_) : less(b, a, op, budget_) || equal(a, b, budget_);
}

Value Interpreter::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.parts[0]);
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.parts[i + 1] == nullptr) continue;
    const Value bound = eval(*expr.parts[i + 1]);
    if (bound.is_none()) continue;
    if (!bound.is_integral()) raise("slice indices must be integers or None or have an __index__ method");
    bounds[i] = bound.as_integral();
  }
  return slice(object, bounds[0], bounds[1], bounds[2].value_or(1), budget_);
}

Value Interpreter::eval_filter(const Expr& expr) {
  const Value input = eval(*expr.parts[0]);
  return find_filter(expr.name)->apply(input, eval_arguments(expr.arguments), budget_);
}

Value Interpreter::eval_test(const Expr& expr) {
  const Value input = eval(*expr.parts[0]);
  return Value::boolean(find_test(expr.name)->holds(input, eval_arguments(expr.arguments), budget_));
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& parts) {
  std::vector<Value> values;
  values.reserve(parts.size());
  for (const ExprPtr& part : parts) values.push_back(eval(*part));
  return values;
}

Value Interpreter::eval_dict(const Expr& expr) {
  DictBuilder dict(budget_);
  for (size_t i = 0; i + 1 < expr.parts.size(); i += 2) {
    Value key = eval(*expr.parts[i]);
    dict.set(std::move(key), eval(*expr.parts[i + 1]));
  }
  return dict.take();
}

CallArgs Interpreter::eval_arguments(const std::vector<Argument>& arguments) {
  CallArgs args;
  for (const Argument& argument : arguments) {
    Value value = eval(*argument.value);
    if (argument.name.empty()) {
      args.positional.push_back(std::move(value));
    } else {
      args.named.emplace_back(argument.name, std::move(value));
    }
  }
  return args;
}

Value Interpreter::call(const Value& callee, CallArgs args) {
  switch (callee.kind()) {
    case Value::Kind::function:
      return callee.as_function().call(*this, args);
    case Value::Kind::method:
      return call_method(callee.as_method(), args, budget_);
    case Value::Kind::macro:
      return call_macro(callee.as_macro(), std::move(args));
    case Value::Kind::undefined:
      raise("{}", callee.why_undefined());
    default:
      raise("'{}' object is not callable", type_name(callee));
  }
}

Value Interpreter::call_macro(const Macro& macro, CallArgs args) {
  const Stmt& definition = *macro.definition;
  if (macro_depth_ >= budget_.limits().macro_depth) {
    raise("expected at most {} levels of macro calls, got more", budget_.limits().macro_depth);
  }
  if (args.positional.size() > definition.parameters.size()) {
    raise("macro '{}' takes not more than {} argument(s)", definition.name, definition.parameters.size());
  }
  Scope frame{macro.scope, {}};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    frame.set(definition.parameters[i].name, std::move(args.positional[i]));
  }
  for (auto& [name, value] : args.named) {
    bool known = name == "caller";
    for (size_t i = args.positional.size(); i < definition.parameters.size(); ++i)
      known |= definition.parameters[i].name == name;
    if (!known) raise("macro '{}' takes no keyword argument '{}'", definition.name, name);
    frame.set(name, std::move(value));
  }
  ++macro_depth_;
  Scope* const outside = std::exchange(scope_, &frame);
  const int loops = std::exchange(loop_depth_, 0);
  for (const Parameter& p : definition.parameters) {
    bool given = false;
    for (const auto& entry : frame.names) given |= entry.first == p.name;
    if (given) continue;
    frame.set(p.name, p.otherwise ? eval(*p.otherwise)
                                  : Value::undefined(fmt::format("parameter '{}' was not provided", p.name)));
  }
  Str text = capture(definition.body, frame);
  loop_depth_ = loops;
  scope_ = outside;
  --macro_depth_;
  return Value::string(std::move(text));
}

}  // namespace nibble::text::jinja

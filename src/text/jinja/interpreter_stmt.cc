#include "text/jinja/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"

namespace nibble::text::jinja {

void Scope::set(std::string_view name, Value value) {
  for (auto& [n, v] : names) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  names.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(std::vector<std::pair<std::string, Value>> variables, const RenderLimits& limits)
    : variables_(std::move(variables)), budget_(limits) {
  for (const auto& [name, value] : variables_) root_.set(name, value);
}

Str Interpreter::run(const Block& block) {
  Str text;
  out_ = &text;
  exec(block);
  return text;
}

Value Interpreter::new_namespace() {
  namespaces_.emplace_back();
  return Value::name_space(&namespaces_.back());
}

Interpreter::Flow Interpreter::exec(const Block& block) {
  for (const auto& stmt : block) {
    const Flow flow = exec(*stmt);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt) {
  const Budget::Level level(budget_);
  budget_.step();
  line_ = stmt.line;
  switch (stmt.kind) {
    case Stmt::Kind::data:
      emit(stmt.text);
      break;
    case Stmt::Kind::output:
      emit(to_str(eval(*stmt.expr), budget_));
      break;
    case Stmt::Kind::branch:
      return exec_branch(stmt);
    case Stmt::Kind::loop:
      return exec_loop(stmt);
    case Stmt::Kind::assign:
      exec_assign(stmt);
      break;
    case Stmt::Kind::assign_block: {
      Scope scope{scope_, {}};
      bind(stmt.target, filtered(stmt, capture(stmt.body, scope)));
      break;
    }
    case Stmt::Kind::macro:
      macros_.push_back({&stmt, scope_});
      scope_->set(stmt.name, Value::macro(&macros_.back()));
      break;
    case Stmt::Kind::call_block:
      exec_call_block(stmt);
      break;
    case Stmt::Kind::with:
      return exec_with(stmt);
    case Stmt::Kind::filter_block: {
      Scope scope{scope_, {}};
      emit(to_str(filtered(stmt, capture(stmt.body, scope)), budget_));
      break;
    }
    case Stmt::Kind::generation: {
      Scope scope{scope_, {}};
      Str text = capture(stmt.body, scope);
      text.mark_generation();
      emit(std::move(text));
      break;
    }
    case Stmt::Kind::loop_break:
      return Flow::loop_break;
    case Stmt::Kind::loop_continue:
      return Flow::loop_continue;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::exec_branch(const Stmt& stmt) {
  for (const Stmt::Branch& branch : stmt.branches) {
    if (branch.condition == nullptr || truth(eval(*branch.condition))) return exec(branch.body);
  }
  return Flow::normal;
}

// The items that pass the loop's own `if`; jinja counts only those.
std::vector<Value> Interpreter::loop_items(const Stmt& stmt) {
  std::vector<Value> items = iterate(eval(*stmt.expr), budget_);
  if (stmt.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    Scope scope{scope_, {}};
    scope_ = &scope;
    bind(stmt.target, item);
    if (truth(eval(*stmt.condition))) kept.push_back(std::move(item));
    scope_ = scope.parent;
  }
  return kept;
}

Interpreter::Flow Interpreter::exec_loop(const Stmt& stmt) {
  const std::vector<Value> items = loop_items(stmt);
  const int turn_outside = turn_;
  Loop loop{.items = &items, .depth = ++loop_depth_};
  for (; loop.index < items.size(); ++loop.index) {
    const Value& item = items[loop.index];
    budget_.step();
    Scope scope{scope_, {}};
    scope_ = &scope;
    turn_ = item.is_dict() && item.as_dict().message >= 0 ? item.as_dict().message : turn_outside;
    bind(stmt.target, item);
    scope.set("loop", Value::loop(&loop));
    const Flow flow = exec(stmt.body);
    scope_ = scope.parent;
    if (flow == Flow::loop_break) break;
  }
  --loop_depth_;
  turn_ = turn_outside;
  if (!items.empty() || stmt.otherwise.empty()) return Flow::normal;
  Scope scope{scope_, {}};
  scope_ = &scope;
  const Flow flow = exec(stmt.otherwise);
  scope_ = scope.parent;
  return flow;
}

Interpreter::Flow Interpreter::exec_with(const Stmt& stmt) {
  Scope scope{scope_, {}};
  for (const Parameter& p : stmt.parameters) scope.set(p.name, eval(*p.otherwise));
  scope_ = &scope;
  const Flow flow = exec(stmt.body);
  scope_ = scope.parent;
  return flow;
}

void Interpreter::exec_assign(const Stmt& stmt) {
  const Value value = eval(*stmt.expr);
  bind(stmt.target, value);
  // "for i in range(messages|length): set message = messages[i]" is a loop over messages too.
  const bool names_message = !stmt.target.unpack && value.is_dict() && value.as_dict().message >= 0;
  if (names_message && loop_depth_ > 0 && turn_ < 0) turn_ = value.as_dict().message;
}

void Interpreter::bind(const Target& target, const Value& value) {
  if (!target.attribute.empty()) {
    const Value object = lookup(target.names[0]);
    if (!object.is(Value::Kind::name_space)) raise("cannot assign attribute on non-namespace object");
    object.as_namespace().set(target.attribute, value);
    return;
  }
  if (!target.unpack) return scope_->set(target.names[0], value);
  if (!is_iterable(value)) raise("cannot unpack non-iterable {} object", type_name(value));
  const std::vector<Value> items = iterate(value, budget_);
  const size_t n = target.names.size();
  if (items.size() < n) raise("not enough values to unpack (expected {}, got {})", n, items.size());
  if (items.size() > n) raise("too many values to unpack (expected {})", n);
  for (size_t i = 0; i < items.size(); ++i) scope_->set(target.names[i], items[i]);
}

void Interpreter::exec_call_block(const Stmt& stmt) {
  macros_.push_back({&stmt, scope_});
  const Value caller = Value::macro(&macros_.back());
  const Value callee = eval(*stmt.expr->parts[0]);
  CallArgs args = eval_arguments(stmt.expr->arguments);
  args.named.emplace_back("caller", caller);
  line_ = stmt.line;
  emit(to_str(call(callee, std::move(args)), budget_));
}

Str Interpreter::capture(const Block& block, Scope& scope) {
  Str text;
  Str* const out = std::exchange(out_, &text);
  Scope* const outside = std::exchange(scope_, &scope);
  exec(block);
  scope_ = outside;
  out_ = out;
  return text;
}

Value Interpreter::filtered(const Stmt& stmt, Str text) {
  if (stmt.expr == nullptr) return Value::string(std::move(text));
  Scope scope{scope_, {}};
  scope.set(kBlockText, Value::string(std::move(text)));
  scope_ = &scope;
  Value result = eval(*stmt.expr);
  scope_ = scope.parent;
  return result;
}

void Interpreter::emit(Str text) {
  if (out_->size() + text.size() > budget_.limits().output_bytes) budget_.text(out_->size() + text.size());
  budget_.text(text.size());
  text.stamp_turn(turn_);
  out_->append(text);
}

}  // namespace nibble::text::jinja

// Interpreter: runs the syntax tree of one template once.
//
// Provenance: a character keeps the origin of the data or literal it came from through every operation. When it is put
// down (printed, or joined to a longer string) it also gets the turn: the index of the message that the innermost loop
// over messages stands at. So the literals "<|im_start|>assistant\n" and "<|im_end|>" of a message are known to be its
// own, wherever the template assembles them.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/budget.h"

namespace nibble::text::jinja {

/// Names bound in one loop body, macro call, with block or the template itself.
struct Scope {
  Scope* parent;
  std::vector<std::pair<std::string_view, Value>> names;
  void set(std::string_view name, Value value);
};

struct Macro {
  const Stmt* definition;
  Scope* scope;  // where it was defined; encloses every place that can name the macro
};

class Interpreter {
 public:
  /// Variables of the template: its globals. The tree must outlive the interpreter.
  Interpreter(std::vector<std::pair<std::string, Value>> variables, const RenderLimits& limits);

  /// The text of the whole template. Throws jinja::Error; line() then says where. Call once.
  Str run(const Block& block);
  int line() const { return line_; }

  Budget& budget() { return budget_; }
  Value new_namespace();

 private:
  enum class Flow { normal, loop_break, loop_continue };

  // Statements (interpreter_stmt.cc)
  Flow exec(const Block& block);
  Flow exec(const Stmt& stmt);
  Flow exec_branch(const Stmt& stmt);
  Flow exec_loop(const Stmt& stmt);
  Flow exec_with(const Stmt& stmt);
  void exec_assign(const Stmt& stmt);
  void exec_call_block(const Stmt& stmt);
  std::vector<Value> loop_items(const Stmt& stmt);
  void bind(const Target& target, const Value& value);
  /// What `block` prints, run in a scope of its own.
  Str capture(const Block& block, Scope& scope);
  Value filtered(const Stmt& stmt, Str text);
  void emit(Str text);

  // Expressions (interpreter_expr.cc)
  Value eval(const Expr& expr);
  Value eval_node(const Expr& expr);
  Value lookup(const std::string& name) const;
  Value eval_arithmetic(const Expr& expr);
  Value eval_concat(const Expr& expr);
  Value eval_compare(const Expr& expr);
  bool compare(const std::string& op, const Value& a, const Value& b);
  Value eval_slice(const Expr& expr);
  Value eval_filter(const Expr& expr);
  Value eval_test(const Expr& expr);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& parts);
  Value eval_dict(const Expr& expr);
  CallArgs eval_arguments(const std::vector<Argument>& arguments);
  Value call(const Value& callee, CallArgs args);
  Value call_macro(const Macro& macro, CallArgs args);

  std::vector<std::pair<std::string, Value>> variables_;
  Budget budget_;
  Scope root_{nullptr, {}};
  Scope* scope_ = &root_;
  Str* out_ = nullptr;
  int turn_ = -1, line_ = 1, loop_depth_ = 0, macro_depth_ = 0;
  std::deque<Namespace> namespaces_;
  std::deque<Macro> macros_;
};

}  // namespace nibble::text::jinja

// The syntax tree of a template. Immutable after parsing; its depth is bounded (kMaxTreeDepth), so walks may recurse.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::text::jinja {

inline constexpr int kMaxTreeDepth = 256;

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<const Expr>;
using Block = std::vector<std::unique_ptr<const Stmt>>;

/// name = value in a call; positional arguments have no name.
struct Argument {
  std::string name;
  ExprPtr value;
};

struct Expr {
  enum class Kind {
    constant,     // value
    name,         // name
    list,         // parts: items
    tuple,        // parts: items
    dict,         // parts: key, value, key, value, …
    negate,       // parts: operand
    plus,         // parts: operand
    logical_not,  // parts: operand
    logical_and,  // parts: left, right
    logical_or,   // parts: left, right
    arithmetic,   // parts: left, right; op: "+" "-" "*" "/" "//" "%" "**"
    concat,       // parts: operands of ~
    compare,      // parts: operands; ops[i] stands between parts i and i+1: "==" … "in" "not in"
    conditional,  // parts: value, condition, other value or null
    attribute,    // parts: object; name
    item,         // parts: object, index
    slice,        // parts: object, start, stop, step (each of the last three may be null)
    call,         // parts: callee; arguments
    filter,       // parts: input; name, arguments
    test,         // parts: input; name, arguments
  };
  Kind kind;
  int line;
  int depth = 1;
  std::string name;
  std::string op;
  Value value = Value::none();
  std::vector<ExprPtr> parts;
  std::vector<std::string> ops;
  std::vector<Argument> arguments;
};

/// What a for or a set binds: one name, several (unpacking), or an attribute of a namespace ("ns.x").
struct Target {
  std::vector<std::string> names;
  std::string attribute;  // of names[0]; empty = the names themselves
  bool unpack = false;
};

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // the default; may be null
};

struct Stmt {
  enum class Kind {
    data,          // text
    output,        // expr
    branch,        // branches: condition (null for else) and body
    loop,          // target, expr, condition (may be null), body, otherwise
    assign,        // target, expr
    assign_block,  // target, body, filters applied to it: expr (its input is the name "body"; may be null)
    macro,         // name, parameters, body
    call_block,    // expr: the call; parameters and body of `caller`
    with,          // parameters: name = value; body
    filter_block,  // expr (its input is the name "body"), body
    generation,    // body
    loop_break,
    loop_continue,
  };
  struct Branch {
    ExprPtr condition;
    Block body;
  };
  Kind kind;
  int line;
  Str text;
  std::string name;
  Target target;
  ExprPtr expr, condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Block body, otherwise;
};

/// The name that stands for the captured text in the filter chain of a block; no template can write it.
inline constexpr std::string_view kBlockText = "{body}";

}  // namespace nibble::text::jinja

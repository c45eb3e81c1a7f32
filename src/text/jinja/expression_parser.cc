#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "text/jinja/filters.h"
#include "text/jinja/tests.h"

namespace nibble::text::jinja {
namespace {

using ExprKind = Expr::Kind;
using Type = Token::Type;

template <class... P>
std::vector<ExprPtr> parts(P... p) {
  std::vector<ExprPtr> result;
  (result.push_back(std::move(p)), ...);
  return result;
}

// A node over its parts. Left-recursive chains ("a + b + c …") deepen the tree without deepening the parser, so the
// depth is checked here.
std::unique_ptr<Expr> node(ExprKind kind, int line, std::vector<ExprPtr> children = {},
                           std::vector<Argument> arguments = {}) {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->line = line;
  for (const ExprPtr& part : children) e->depth = std::max(e->depth, part ? part->depth + 1 : 1);
  for (const Argument& argument : arguments) e->depth = std::max(e->depth, argument.value->depth + 1);
  if (e->depth > kMaxTreeDepth) {
    throw Error(Code::unsupported, fmt::format("expected at most {} nested expressions, got more", kMaxTreeDepth),
                line);
  }
  e->parts = std::move(children);
  e->arguments = std::move(arguments);
  return e;
}

ExprPtr constant(Value value, int line) {
  auto e = node(ExprKind::constant, line);
  e->value = std::move(value);
  return e;
}

ExprPtr named(ExprKind kind, int line, std::string name, std::vector<ExprPtr> children = {},
              std::vector<Argument> arguments = {}) {
  auto e = node(kind, line, std::move(children), std::move(arguments));
  e->name = std::move(name);
  return e;
}

ExprPtr arithmetic(std::string op, int line, ExprPtr left, ExprPtr right) {
  auto e = node(ExprKind::arithmetic, line, parts(std::move(left), std::move(right)));
  e->op = std::move(op);
  return e;
}

}  // namespace

ParseLevel::ParseLevel(int& level, int line) : level_(level) {
  if (level_ >= kMaxLevels) {
    throw Error(Code::unsupported, fmt::format("expected at most {} levels of nesting, got more", kMaxLevels), line);
  }
  ++level_;
}

ExprPtr ExpressionParser::expression(Inline conditional_form) {
  const ParseLevel level(level_, tokens_.line());
  return conditional_form == Inline::allowed ? conditional() : logical_or();
}

bool ExpressionParser::at_tuple_end() const {
  return tokens_.at(Type::variable_end) || tokens_.at(Type::block_end) || tokens_.at_op(")") || tokens_.at_name("in") ||
         tokens_.at_name("recursive");
}

ExprPtr ExpressionParser::expression_or_tuple(Inline conditional_form) {
  const int line = tokens_.line();
  ExprPtr first = expression(conditional_form);
  if (!tokens_.at_op(",")) return first;
  std::vector<ExprPtr> items = parts(std::move(first));
  while (tokens_.accept_op(",")) {
    if (at_tuple_end()) break;
    items.push_back(expression(conditional_form));
  }
  return node(ExprKind::tuple, line, std::move(items));
}

ExprPtr ExpressionParser::conditional() {
  ExprPtr value = logical_or();
  while (tokens_.at_name("if")) {
    const int line = tokens_.next().line;
    ExprPtr condition = logical_or();
    ExprPtr other = tokens_.accept_name("else") ? expression() : nullptr;
    value = node(ExprKind::conditional, line, parts(std::move(value), std::move(condition), std::move(other)));
  }
  return value;
}

ExprPtr ExpressionParser::logical_or() {
  ExprPtr left = logical_and();
  while (tokens_.at_name("or")) {
    const int line = tokens_.next().line;
    left = node(ExprKind::logical_or, line, parts(std::move(left), logical_and()));
  }
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  ExprPtr left = logical_not();
  while (tokens_.at_name("and")) {
    const int line = tokens_.next().line;
    left = node(ExprKind::logical_and, line, parts(std::move(left), logical_not()));
  }
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  if (!tokens_.at_name("not")) return compare();
  const ParseLevel level(level_, tokens_.line());
  const int line = tokens_.next().line;
  return node(ExprKind::logical_not, line, parts(logical_not()));
}

// The comparison at hand, taken from the stream; empty if there is none.
std::string ExpressionParser::compare_operator() {
  for (const char* op : {"==", "!=", "<", "<=", ">", ">="}) {
    if (tokens_.accept_op(op)) return op;
  }
  if (tokens_.accept_name("in")) return "in";
  if (tokens_.at_name("not") && tokens_.peek(1).type == Type::name && tokens_.peek(1).text == "in") {
    tokens_.next();
    tokens_.next();
    return "not in";
  }
  return {};
}

ExprPtr ExpressionParser::compare() {
  const int line = tokens_.line();
  std::vector<ExprPtr> operands = parts(sum());
  std::vector<std::string> ops;
  for (std::string op = compare_operator(); !op.empty(); op = compare_operator()) {
    ops.push_back(std::move(op));
    operands.push_back(sum());
  }
  if (ops.empty()) return std::move(operands[0]);
  auto e = node(ExprKind::compare, line, std::move(operands));
  e->ops = std::move(ops);
  return e;
}

ExprPtr ExpressionParser::sum() {
  ExprPtr left = concat();
  while (tokens_.at_op("+") || tokens_.at_op("-")) {
    const Token& op = tokens_.next();
    left = arithmetic(op.text, op.line, std::move(left), concat());
  }
  return left;
}

ExprPtr ExpressionParser::concat() {
  const int line = tokens_.line();
  std::vector<ExprPtr> operands = parts(product());
  while (tokens_.accept_op("~")) operands.push_back(product());
  return operands.size() == 1 ? std::move(operands[0]) : node(ExprKind::concat, line, std::move(operands));
}

ExprPtr ExpressionParser::product() {
  ExprPtr left = power();
  while (tokens_.at_op("*") || tokens_.at_op("/") || tokens_.at_op("//") || tokens_.at_op("%")) {
    const Token& op = tokens_.next();
    left = arithmetic(op.text, op.line, std::move(left), power());
  }
  return left;
}

ExprPtr ExpressionParser::power() {
  ExprPtr left = unary();
  while (tokens_.at_op("**")) {
    const int line = tokens_.next().line;
    left = arithmetic("**", line, std::move(left), unary());
  }
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const int line = tokens_.line();
  ExprPtr e;
  if (tokens_.at_op("-") || tokens_.at_op("+")) {
    const ParseLevel level(level_, line);
    const ExprKind kind = tokens_.next().text == "-" ? ExprKind::negate : ExprKind::plus;
    e = node(kind, line, parts(unary(false)));
  } else {
    e = primary();
  }
  e = postfix(std::move(e));
  return with_filters ? filters_and_tests(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary() {
  const Token& token = tokens_.peek();
  switch (token.type) {
    case Type::name:
      return name_or_constant();
    case Type::string: {
      std::string value;  // neighbouring literals are one string
      while (tokens_.at(Type::string)) value += tokens_.next().text;
      return constant(Value::string(std::move(value)), token.line);
    }
    case Type::integer:
    case Type::real:
      return number();
    default:
      break;
  }
  if (tokens_.at_op("(")) return parenthesised();
  if (tokens_.at_op("[")) return list();
  if (tokens_.at_op("{")) return dict();
  tokens_.fail("an expression");
}

ExprPtr ExpressionParser::name_or_constant() {
  const Token& token = tokens_.next();
  if (token.text == "true" || token.text == "True") return constant(Value::boolean(true), token.line);
  if (token.text == "false" || token.text == "False") return constant(Value::boolean(false), token.line);
  if (token.text == "none" || token.text == "None") return constant(Value::none(), token.line);
  return named(ExprKind::name, token.line, token.text);
}

ExprPtr ExpressionParser::number() {
  const Token& token = tokens_.next();
  if (token.type == Type::real) return constant(Value::real(std::strtod(token.text.c_str(), nullptr)), token.line);
  int64_t value = 0;
  const auto result = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
  if (result.ec != std::errc()) {
    throw Error(Code::unsupported, fmt::format("expected integers of at most 64 bits, got {}", token.text), token.line);
  }
  return constant(Value::integer(value), token.line);
}

ExprPtr ExpressionParser::parenthesised() {
  const int line = tokens_.next().line;
  if (tokens_.accept_op(")")) return node(ExprKind::tuple, line);
  ExprPtr e = expression_or_tuple();
  tokens_.expect_op(")");
  return e;
}

ExprPtr ExpressionParser::list() {
  const int line = tokens_.next().line;
  std::vector<ExprPtr> items;
  while (!tokens_.at_op("]")) {
    items.push_back(expression());
    if (!tokens_.accept_op(",")) break;
  }
  tokens_.expect_op("]");
  return node(ExprKind::list, line, std::move(items));
}

ExprPtr ExpressionParser::dict() {
  const int line = tokens_.next().line;
  std::vector<ExprPtr> entries;
  while (!tokens_.at_op("}")) {
    entries.push_back(expression());
    tokens_.expect_op(":");
    entries.push_back(expression());
    if (!tokens_.accept_op(",")) break;
  }
  tokens_.expect_op("}");
  return node(ExprKind::dict, line, std::move(entries));
}

ExprPtr ExpressionParser::postfix(ExprPtr object) {
  while (true) {
    if (tokens_.at_op(".")) {
      object = attribute(std::move(object));
    } else if (tokens_.at_op("[")) {
      object = subscript(std::move(object));
    } else if (tokens_.at_op("(")) {
      const int line = tokens_.line();
      object = node(ExprKind::call, line, parts(std::move(object)), call_arguments());
    } else {
      return object;
    }
  }
}

ExprPtr ExpressionParser::attribute(ExprPtr object) {
  const int line = tokens_.next().line;
  if (tokens_.at(Type::integer)) return node(ExprKind::item, line, parts(std::move(object), number()));
  return named(ExprKind::attribute, line, tokens_.expect_name(), parts(std::move(object)));
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  const int line = tokens_.next().line;
  ExprPtr start, stop, step;
  if (!tokens_.at_op(":")) start = expression();
  if (!tokens_.at_op(":")) {
    tokens_.expect_op("]");
    return node(ExprKind::item, line, parts(std::move(object), std::move(start)));
  }
  tokens_.next();
  if (!tokens_.at_op(":") && !tokens_.at_op("]")) stop = expression();
  if (tokens_.accept_op(":") && !tokens_.at_op("]")) step = expression();
  tokens_.expect_op("]");
  return node(ExprKind::slice, line, parts(std::move(object), std::move(start), std::move(stop), std::move(step)));
}

std::vector<Argument> ExpressionParser::call_arguments() {
  tokens_.expect_op("(");
  std::vector<Argument> arguments;
  while (!tokens_.at_op(")")) {
    if (tokens_.at_op("*") || tokens_.at_op("**")) {
      throw Error(Code::unsupported, "expected plain arguments, got * unpacking", tokens_.line());
    }
    Argument argument;
    if (tokens_.at(Type::name) && tokens_.peek(1).type == Type::op && tokens_.peek(1).text == "=") {
      argument.name = tokens_.next().text;
      tokens_.next();
    } else if (!arguments.empty() && !arguments.back().name.empty()) {
      tokens_.fail("a keyword argument");
    }
    argument.value = expression();
    arguments.push_back(std::move(argument));
    if (!tokens_.accept_op(",")) break;
  }
  tokens_.expect_op(")");
  return arguments;
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr input) {
  while (true) {
    if (tokens_.at_op("|")) {
      input = filter(std::move(input));
    } else if (tokens_.at_name("is")) {
      input = test(std::move(input));
    } else if (tokens_.at_op("(")) {
      const int line = tokens_.line();
      input = node(ExprKind::call, line, parts(std::move(input)), call_arguments());
    } else {
      return input;
    }
  }
}

ExprPtr ExpressionParser::filter_chain(bool begins_with_bar) {
  ExprPtr input = named(ExprKind::name, tokens_.line(), std::string(kBlockText));
  if (!begins_with_bar) {
    const int line = tokens_.line();
    std::string name = tokens_.expect_name();
    if (find_filter(name) == nullptr) throw Error(Code::unsupported, fmt::format("no filter named '{}'", name), line);
    std::vector<Argument> arguments;
    if (tokens_.at_op("(")) arguments = call_arguments();
    input = named(ExprKind::filter, line, std::move(name), parts(std::move(input)), std::move(arguments));
  }
  while (tokens_.at_op("|")) input = filter(std::move(input));
  return input;
}

ExprPtr ExpressionParser::filter(ExprPtr input) {
  const int line = tokens_.next().line;
  std::string name = tokens_.expect_name();
  if (find_filter(name) == nullptr) throw Error(Code::unsupported, fmt::format("no filter named '{}'", name), line);
  std::vector<Argument> arguments;
  if (tokens_.at_op("(")) arguments = call_arguments();
  return named(ExprKind::filter, line, std::move(name), parts(std::move(input)), std::move(arguments));
}

// The argument of a test may stand without parentheses: "x is divisibleby 3".
std::vector<Argument> ExpressionParser::test_arguments() {
  if (tokens_.at_op("(")) return call_arguments();
  const bool begins_value = tokens_.at(Type::name) || tokens_.at(Type::string) || tokens_.at(Type::integer) ||
                            tokens_.at(Type::real) || tokens_.at_op("[") || tokens_.at_op("{");
  for (const char* word : {"else", "or", "and", "if", "recursive", "not", "in"}) {
    if (tokens_.at_name(word)) return {};
  }
  if (!begins_value) return {};
  if (tokens_.at_name("is")) tokens_.fail("one test, not a chain of them");
  std::vector<Argument> arguments(1);
  arguments[0].value = postfix(primary());
  return arguments;
}

ExprPtr ExpressionParser::test(ExprPtr input) {
  const int line = tokens_.next().line;
  const bool negated = tokens_.accept_name("not");
  std::string name = tokens_.expect_name();
  if (find_test(name) == nullptr) throw Error(Code::unsupported, fmt::format("no test named '{}'", name), line);
  std::vector<Argument> arguments = test_arguments();
  ExprPtr e = named(ExprKind::test, line, std::move(name), parts(std::move(input)), std::move(arguments));
  return negated ? node(ExprKind::logical_not, line, parts(std::move(e))) : std::move(e);
}

}  // namespace nibble::text::jinja

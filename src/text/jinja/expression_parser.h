// ExpressionParser: Jinja's expression grammar by recursive descent, loosest operator first:
//   conditional:  or ['if' or ['else' conditional]]
//   or: and {'or' and}          and: not {'and' not}          not: 'not' not | compare
//   compare: sum {('==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not' 'in') sum}
//   sum: concat {('+' | '-') concat}      concat: product {'~' product}
//   product: power {('*' | '/' | '//' | '%') power}           power: unary {'**' unary}
//   unary: ('-' | '+') unary | primary postfix* ('|' filter | 'is' test | call)*
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace nibble::text::jinja {

/// Counts how deep a recursive parser stands and refuses more than kMaxLevels.
class ParseLevel {
 public:
  static constexpr int kMaxLevels = 100;
  ParseLevel(int& level, int line);
  ~ParseLevel() { --level_; }
  ParseLevel(const ParseLevel&) = delete;
  ParseLevel& operator=(const ParseLevel&) = delete;

 private:
  int& level_;
};

class ExpressionParser {
 public:
  enum class Inline { allowed, forbidden };  // whether `a if b else c` is read, or the `if` belongs to what follows

  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExprPtr expression(Inline conditional = Inline::allowed);
  /// An expression, or several with commas between: a tuple.
  ExprPtr expression_or_tuple(Inline conditional = Inline::allowed);
  /// "name(args) | name …" behind a block keyword; the first input is the name kBlockText.
  ExprPtr filter_chain(bool begins_with_bar);
  std::vector<Argument> call_arguments();
  ExprPtr unary(bool with_filters = true);
  int& level() { return level_; }

 private:
  ExprPtr conditional();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr compare();
  std::string compare_operator();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr primary();
  ExprPtr name_or_constant();
  ExprPtr number();
  ExprPtr parenthesised();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr object);
  ExprPtr attribute(ExprPtr object);
  ExprPtr subscript(ExprPtr object);
  ExprPtr filters_and_tests(ExprPtr input);
  ExprPtr filter(ExprPtr input);
  ExprPtr test(ExprPtr input);
  std::vector<Argument> test_arguments();
  bool at_tuple_end() const;

  TokenStream& tokens_;
  int level_ = 0;
};

}  // namespace nibble::text::jinja

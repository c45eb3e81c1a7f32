#include "text/jinja/parser.h"

#include <initializer_list>

#include "text/jinja/expression_parser.h"

namespace nibble::text::jinja {
namespace {

using StmtKind = Stmt::Kind;
using Type = Token::Type;
using Inline = ExpressionParser::Inline;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  Block run() {
    Block block = body({});
    if (!tokens_.at(Type::end)) tokens_.fail("end of template");
    return block;
  }

 private:
  using Words = std::initializer_list<std::string_view>;

  static std::unique_ptr<Stmt> statement(StmtKind kind, int line) {
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->line = line;
    return s;
  }

  bool at_keyword(Words words) const {
    if (!tokens_.at(Type::block_begin) || tokens_.peek(1).type != Type::name) return false;
    for (const std::string_view word : words) {
      if (tokens_.peek(1).text == word) return true;
    }
    return false;
  }

  // Statements up to a block that begins with one of `ends`, which is left in the stream.
  Block body(Words ends) {
    Block block;
    while (!tokens_.at(Type::end)) {
      if (at_keyword(ends)) return block;
      const Token& token = tokens_.next();
      if (token.type == Type::data) {
        auto s = statement(StmtKind::data, token.line);
        s->text = Str(token.text, {});
        block.push_back(std::move(s));
      } else if (token.type == Type::variable_begin) {
        auto s = statement(StmtKind::output, token.line);
        s->expr = expressions_.expression_or_tuple();
        tokens_.expect(Type::variable_end, "'}}'");
        block.push_back(std::move(s));
      } else {
        block.push_back(block_statement());
      }
    }
    if (ends.size() > 0) {
      std::string expected;
      for (const std::string_view word : ends) expected += fmt::format("{}'{}'", expected.empty() ? "" : " or ", word);
      tokens_.fail(expected);
    }
    return block;
  }

  // "{% word %}": the end of a block that body() stopped at.
  void end_block(std::string_view word) {
    tokens_.next();
    if (!tokens_.accept_name(word)) tokens_.fail(fmt::format("'{}'", word));
    end_tag();
  }
  void end_tag() { tokens_.expect(Type::block_end, "'%}'"); }

  std::unique_ptr<Stmt> block_statement() {
    const int line = tokens_.line();
    const ParseLevel level(expressions_.level(), line);
    const std::string word = tokens_.expect_name();
    if (word == "if") return branch(line);
    if (word == "for") return loop(line);
    if (word == "set") return assign(line);
    if (word == "macro") return macro(line);
    if (word == "call") return call_block(line);
    if (word == "with") return with(line);
    if (word == "filter") return filter_block(line);
    if (word == "generation") return generation(line);
    if (word == "break") return jump(StmtKind::loop_break, line);
    if (word == "continue") return jump(StmtKind::loop_continue, line);
    for (const char* other : {"include", "import", "from", "extends", "block", "do", "autoescape", "trans", "debug"}) {
      if (word == other) throw Error(Code::unsupported, fmt::format("no tag named '{}' in chat templates", word), line);
    }
    throw Error(Code::corrupt, fmt::format("expected a tag, got '{}'", word), line);
  }

  std::unique_ptr<Stmt> branch(int line) {
    auto s = statement(StmtKind::branch, line);
    ExprPtr condition = expressions_.expression_or_tuple(Inline::forbidden);
    while (true) {
      end_tag();
      const bool last = condition == nullptr;
      Block block = last ? body({"endif"}) : body({"elif", "else", "endif"});
      s->branches.push_back({std::move(condition), std::move(block)});
      tokens_.next();
      if (tokens_.accept_name("endif")) break;
      condition = tokens_.accept_name("elif") ? expressions_.expression_or_tuple(Inline::forbidden) : nullptr;
      if (condition == nullptr) tokens_.accept_name("else");
    }
    end_tag();
    return s;
  }

  std::unique_ptr<Stmt> loop(int line) {
    auto s = statement(StmtKind::loop, line);
    s->target = target(/*with_attribute=*/false);
    if (!tokens_.accept_name("in")) tokens_.fail("'in'");
    s->expr = expressions_.expression_or_tuple(Inline::forbidden);
    if (tokens_.accept_name("if")) s->condition = expressions_.expression();
    if (tokens_.at_name("recursive")) throw Error(Code::unsupported, "recursive loops are not supported", line);
    end_tag();
    ++loops_;
    s->body = body({"else", "endfor"});
    --loops_;
    if (at_keyword({"else"})) {
      end_block("else");
      s->otherwise = body({"endfor"});
    }
    end_block("endfor");
    return s;
  }

  // name | name, name, … | (name, name) | name.attribute
  Target target(bool with_attribute) {
    Target t;
    const bool parenthesised = tokens_.accept_op("(");
    t.names.push_back(target_name());
    if (with_attribute && !parenthesised && tokens_.accept_op(".")) {
      t.attribute = tokens_.expect_name();
      return t;
    }
    while (tokens_.accept_op(",")) {
      t.unpack = true;
      if (!tokens_.at(Type::name) || tokens_.at_name("in")) break;
      t.names.push_back(target_name());
    }
    if (parenthesised) tokens_.expect_op(")");
    return t;
  }

  std::string target_name() {
    for (const char* word :
         {"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"}) {
      if (tokens_.at_name(word)) tokens_.fail("a name that can be assigned to");
    }
    return tokens_.expect_name();
  }

  std::unique_ptr<Stmt> assign(int line) {
    auto s = statement(StmtKind::assign, line);
    s->target = target(/*with_attribute=*/true);
    if (tokens_.accept_op("=")) {
      s->expr = expressions_.expression_or_tuple();
      end_tag();
      return s;
    }
    s->kind = StmtKind::assign_block;
    if (s->target.unpack) tokens_.fail("'='");
    if (tokens_.at_op("|")) s->expr = expressions_.filter_chain(/*begins_with_bar=*/true);
    end_tag();
    s->body = captured_body("endset");
    return s;
  }

  // A block whose text is captured runs as a unit of its own: no break or continue across its border.
  Block captured_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block block = body({end});
    loops_ = loops;
    end_block(end);
    return block;
  }

  std::vector<Parameter> parameters() {
    std::vector<Parameter> result;
    tokens_.expect_op("(");
    while (!tokens_.at_op(")")) {
      Parameter p;
      p.name = target_name();
      if (tokens_.accept_op("=")) {
        p.otherwise = expressions_.expression();
      } else if (!result.empty() && result.back().otherwise != nullptr) {
        tokens_.fail("a default value, as the parameter before has one");
      }
      result.push_back(std::move(p));
      if (!tokens_.accept_op(",")) break;
    }
    tokens_.expect_op(")");
    return result;
  }

  std::unique_ptr<Stmt> macro(int line) {
    auto s = statement(StmtKind::macro, line);
    s->name = target_name();
    s->parameters = parameters();
    end_tag();
    s->body = captured_body("endmacro");
    return s;
  }

  std::unique_ptr<Stmt> call_block(int line) {
    auto s = statement(StmtKind::call_block, line);
    s->name = "caller";
    if (tokens_.at_op("(")) s->parameters = parameters();
    s->expr = expressions_.unary();
    if (s->expr->kind != Expr::Kind::call) throw Error(Code::corrupt, "expected a call after 'call'", line);
    end_tag();
    s->body = captured_body("endcall");
    return s;
  }

  std::unique_ptr<Stmt> with(int line) {
    auto s = statement(StmtKind::with, line);
    while (!tokens_.at(Type::block_end)) {
      Parameter p;
      p.name = target_name();
      tokens_.expect_op("=");
      p.otherwise = expressions_.expression();
      s->parameters.push_back(std::move(p));
      if (!tokens_.accept_op(",")) break;
    }
    end_tag();
    s->body = body({"endwith"});
    end_block("endwith");
    return s;
  }

  std::unique_ptr<Stmt> filter_block(int line) {
    auto s = statement(StmtKind::filter_block, line);
    s->expr = expressions_.filter_chain(/*begins_with_bar=*/false);
    end_tag();
    s->body = captured_body("endfilter");
    return s;
  }

  std::unique_ptr<Stmt> generation(int line) {
    auto s = statement(StmtKind::generation, line);
    end_tag();
    s->body = captured_body("endgeneration");
    return s;
  }

  std::unique_ptr<Stmt> jump(StmtKind kind, int line) {
    if (loops_ == 0) {
      const char* word = kind == StmtKind::loop_break ? "break" : "continue";
      throw Error(Code::corrupt, fmt::format("expected '{}' inside a loop", word), line);
    }
    end_tag();
    return statement(kind, line);
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int loops_ = 0;  // open loops that a break could end
};

}  // namespace

Block parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace nibble::text::jinja

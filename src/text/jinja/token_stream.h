// TokenStream: the parser's view of the tokens. It never runs past the `end` token.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/error.h"
#include "text/jinja/lexer.h"

namespace nibble::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  int line() const { return peek().line; }

  bool at(Token::Type type) const { return peek().type == type; }
  bool at_op(std::string_view op) const { return at(Token::Type::op) && peek().text == op; }
  bool at_name(std::string_view name) const { return at(Token::Type::name) && peek().text == name; }

  bool accept_op(std::string_view op) { return at_op(op) && (next(), true); }
  bool accept_name(std::string_view name) { return at_name(name) && (next(), true); }

  void expect_op(std::string_view op) {
    if (!accept_op(op)) fail(fmt::format("'{}'", op));
  }
  std::string expect_name() {
    if (!at(Token::Type::name)) fail("a name");
    return next().text;
  }
  void expect(Token::Type type, std::string_view what) {
    if (!at(type)) fail(what);
    next();
  }

  [[noreturn]] void fail(std::string_view expected) const {
    throw Error(Code::corrupt, fmt::format("expected {}, got {}", expected, describe(peek())), line());
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace nibble::text::jinja

#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "text/jinja/error.h"
#include "text/jinja/str.h"
#include "text/jinja/string_literal.h"

namespace nibble::text::jinja {
namespace {

using Type = Token::Type;

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "*",
                                                         "/",  "%",  "~",  "(",  ")",  "[",  "]", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

// "\r\n" and "\r" become "\n"; one newline at the very end is dropped.
std::string normalise(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_name_part(char c) {
  return is_name_start(c) || is_digit(c);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalise(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      data();
      if (at_ < text_.size()) tag();
    }
    add(Type::end, "");
    return std::move(tokens_);
  }

 private:
  void add(Type type, std::string text) { tokens_.push_back({type, std::move(text), line_}); }

  [[noreturn]] void fail(std::string message) const { throw Error(Code::corrupt, std::move(message), line_); }

  std::string_view rest() const { return std::string_view(text_).substr(at_); }
  bool looking_at(std::string_view s) const { return rest().substr(0, s.size()) == s; }

  void advance(size_t n) {
    line_ += static_cast<int>(
        std::count(text_.begin() + static_cast<ptrdiff_t>(at_), text_.begin() + static_cast<ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }
  void skip_space() { advance(leading_space(rest())); }

  // Text up to the next tag. A '-' of that tag takes all white space before it; otherwise a block or comment that
  // stands alone at the beginning of its line takes the indentation, unless a '+' keeps it.
  void data() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= text_.size()) {
        tag = text_.size();
        break;
      }
      if (text_[tag + 1] == '%' || text_[tag + 1] == '{' || text_[tag + 1] == '#') break;
    }
    std::string_view text = std::string_view(text_).substr(at_, tag - at_);
    if (tag < text_.size())
      text = strip_before_tag(text, text_[tag + 1], tag + 2 < text_.size() ? text_[tag + 2] : ' ');
    if (!text.empty()) add(Type::data, std::string(text));
    advance(tag - at_);
  }

  std::string_view strip_before_tag(std::string_view text, char kind, char sign) const {
    if (sign == '-') return text.substr(0, text.size() - trailing_space(text));
    if (sign == '+' || kind == '{') return text;
    const size_t newline = text.rfind('\n');
    if (newline == std::string_view::npos && !line_start_) return text;
    const size_t indent = newline == std::string_view::npos ? 0 : newline + 1;
    return leading_space(text.substr(indent)) == text.size() - indent ? text.substr(0, indent) : text;
  }

  void tag() {
    const char kind = text_[at_ + 1];
    const bool signed_tag = at_ + 2 < text_.size() && (text_[at_ + 2] == '-' || text_[at_ + 2] == '+');
    const size_t begin = at_;
    const Type open = kind == '{' ? Type::variable_begin : Type::block_begin;
    if (kind == '%' && raw()) return;
    if (kind != '#') add(open, std::string(text_, at_, 2));
    advance(signed_tag ? 3 : 2);
    if (kind == '#') {
      comment();
    } else {
      const int opened_at = line_;
      while (!end_of_tag(kind)) {
        skip_space();
        if (at_ >= text_.size()) {
          line_ = opened_at;
          fail(fmt::format("expected '{}', got end of template", kind == '{' ? "}}" : "%}"));
        }
        if (!end_of_tag_here(kind)) token();
      }
    }
    line_start_ = at_ > begin && text_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t close = text_.find("#}", at_);
    if (close == std::string::npos) fail("expected '#}', got end of template");
    const char sign = close > at_ ? text_[close - 1] : ' ';
    advance(close + 2 - at_);
    after_block(sign);
  }

  // What a closing "%}" or "#}" takes with it: '-' all white space, '+' nothing, otherwise one newline.
  void after_block(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && looking_at("\n")) {
      advance(1);
    }
  }

  // "{% raw %}…{% endraw %}" as one piece of data; false if no raw block begins here.
  bool raw() {
    const size_t content = after_keyword(at_, "raw");
    if (content == std::string::npos) return false;
    const bool strip = text_[content - 3] == '-';
    advance(content - at_);
    if (strip) skip_space();
    for (size_t open = text_.find("{%", at_); open != std::string::npos; open = text_.find("{%", open + 1)) {
      const size_t after = after_keyword(open, "endraw");
      if (after == std::string::npos) continue;
      line_start_ = at_ > 0 && text_[at_ - 1] == '\n';
      const std::string_view text =
          strip_before_tag(std::string_view(text_).substr(at_, open - at_), '%', text_[open + 2]);
      if (!text.empty()) add(Type::data, std::string(text));
      const char sign = text_[after - 3];
      advance(after - at_);
      after_block(sign);
      line_start_ = text_[at_ - 1] == '\n';
      return true;
    }
    fail("expected 'endraw', got end of template");
  }

  // If "{%", a sign, `keyword`, a sign and "%}" stand at `open`: the position after them.
  size_t after_keyword(size_t open, std::string_view keyword) const {
    const std::string_view all = text_;
    size_t i = open + 2;
    if (i < all.size() && (all[i] == '-' || all[i] == '+')) ++i;
    i += leading_space(all.substr(std::min(i, all.size())));
    if (all.substr(std::min(i, all.size()), keyword.size()) != keyword) return std::string::npos;
    i += keyword.size();
    i += leading_space(all.substr(i));
    if (i < all.size() && (all[i] == '-' || all[i] == '+')) ++i;
    return all.substr(std::min(i, all.size()), 2) == "%}" ? i + 2 : std::string::npos;
  }

  bool end_of_tag_here(char kind) const {
    if (!brackets_.empty()) return false;
    if (kind == '{') return looking_at("}}") || looking_at("-}}");
    return looking_at("%}") || looking_at("-%}") || looking_at("+%}");
  }

  bool end_of_tag(char kind) {
    if (!end_of_tag_here(kind)) return false;
    const char sign = text_[at_];
    add(kind == '{' ? Type::variable_end : Type::block_end, kind == '{' ? "}}" : "%}");
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '{') {
      if (sign == '-') skip_space();
    } else {
      after_block(sign);
    }
    return true;
  }

  void token() {
    const char c = text_[at_];
    if (is_name_start(c)) {
      size_t n = 1;
      while (at_ + n < text_.size() && is_name_part(text_[at_ + n])) ++n;
      add(Type::name, std::string(text_, at_, n));
      advance(n);
    } else if (is_digit(c)) {
      number();
    } else if (c == '"' || c == '\'') {
      string(c);
    } else {
      op();
    }
  }

  void number() {
    size_t n = 0;
    bool real = false;
    const auto digits = [&] {
      while (at_ + n < text_.size() && (is_digit(text_[at_ + n]) || text_[at_ + n] == '_')) ++n;
    };
    const auto digit_at = [&](size_t i) { return at_ + i < text_.size() && is_digit(text_[at_ + i]); };
    const auto char_at = [&](size_t i) { return at_ + i < text_.size() ? text_[at_ + i] : ' '; };
    digits();
    // "x.0.1" is item 1 of item 0, so after a dot there are no fractions.
    const bool after_dot = at_ > 0 && text_[at_ - 1] == '.';
    if (!after_dot && char_at(n) == '.' && digit_at(n + 1)) {
      real = true;
      ++n;
      digits();
    }
    const size_t sign = char_at(n + 1) == '+' || char_at(n + 1) == '-';
    if (!after_dot && (char_at(n) == 'e' || char_at(n) == 'E') && digit_at(n + 1 + sign)) {
      real = true;
      n += 1 + sign;
      digits();
    }
    if (at_ + n < text_.size() && is_name_part(text_[at_ + n])) {
      fail(fmt::format("expected a decimal number, got '{}'", text_.substr(at_, n + 1)));
    }
    std::string value(text_, at_, n);
    std::erase(value, '_');
    add(real ? Type::real : Type::integer, std::move(value));
    advance(n);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail("expected the end of a string, got end of template");
    std::string value;
    const std::string problem = unescape(std::string_view(text_).substr(at_ + 1, end - at_ - 1), value);
    if (!problem.empty()) fail(problem);
    add(Type::string, std::move(value));
    advance(end + 1 - at_);
  }

  void op() {
    const auto found = std::find_if(kOperators.begin(), kOperators.end(), [&](auto o) { return looking_at(o); });
    if (found == kOperators.end()) {
      fail(fmt::format("expected an expression, got '{}'", rest().substr(0, code_point_at(rest(), 0).size)));
    }
    balance((*found)[0]);
    add(Type::op, std::string(*found));
    advance(found->size());
  }

  // Inside brackets "}}" is two braces, not the end of the tag.
  void balance(char c) {
    if (c == '(' || c == '[' || c == '{') {
      brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty()) fail(fmt::format("expected an expression, got '{}'", c));
      if (brackets_.back() != c) fail(fmt::format("expected '{}', got '{}'", brackets_.back(), c));
      brackets_.pop_back();
    }
  }

  const std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // only what the tag before took with it ends the line before `at_`
  std::string brackets_;    // closing brackets that are due
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

std::string describe(const Token& token) {
  switch (token.type) {
    case Type::end:
      return "end of template";
    case Type::data:
      return "text";
    case Type::string:
      return "a string";
    default:
      return fmt::format("'{}'", token.text);
  }
}

}  // namespace nibble::text::jinja

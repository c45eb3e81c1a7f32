// Lexer: template source to tokens, with the white space rules that Hugging Face sets for chat templates
// (trim_blocks and lstrip_blocks on, one trailing newline of the source dropped).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::text::jinja {

struct Token {
  enum class Type {
    data,            // text between tags; the content of {% raw %}
    variable_begin,  // {{
    variable_end,
    block_begin,  // {%
    block_end,
    name,
    string,   // text: the value, escapes resolved
    integer,  // text: its digits as written
    real,
    op,
    end,
  };
  Type type;
  std::string text;
  int line;
};

/// Comments are left out. Throws jinja::Error with the line of the fault; the result ends with one `end` token.
std::vector<Token> tokenize(std::string_view source);

/// As it stands in an error: "'endif'", "end of template", …
std::string describe(const Token& token);

}  // namespace nibble::text::jinja

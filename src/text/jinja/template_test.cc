// The language: what jinja2 gives (tests/golden/jinja), what it refuses, and what a rendering may cost.
#include "text/jinja/template.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace nibble::text::jinja {
namespace {

RenderLimits patient() {
  return {.cpu_ms = 60'000};
}  // a sanitizer build is slow

Result<std::string> render(std::string_view source, Variables variables = {}, RenderLimits limits = patient()) {
  NIBBLE_TRY(parsed, Template::parse(source, "t"));
  NIBBLE_TRY(text, parsed.render(std::move(variables), limits));
  return text.bytes();
}

std::string message_of(const Result<std::string>& result) {
  return result.ok() ? "no error" : result.status().message();
}

std::vector<Json> read_lines(const Path& path) {
  const auto text = read_file(path);
  EXPECT_TRUE(text.ok()) << text.status().text();
  std::vector<Json> lines;
  for (size_t begin = 0; text.ok() && begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    const auto line = parse_json(std::string_view(*text).substr(begin, end - begin), path.string());
    EXPECT_TRUE(line.ok()) << line.status().text();
    lines.push_back(*line);
    begin = end + 1;
  }
  return lines;
}

TEST(JinjaTemplate, GivesWhatJinja2Gives) {
  const Path folder = NIBBLE_SOURCE_DIR "/tests/golden/jinja";
  const auto globals = parse_json(*read_file(folder / "variables.json"), "variables.json");
  ASSERT_TRUE(globals.ok()) << globals.status().text();
  Variables variables;
  for (const auto& [key, value] : globals->items()) variables.emplace_back(key, from_json(value, {}));
  const std::vector<Json> cases = read_lines(folder / "cases.jsonl");
  EXPECT_GT(cases.size(), 400U);
  for (const Json& c : cases) {
    const std::string source = c[0], expected = c[1];
    const auto got = render(source, variables);
    if (expected.starts_with("!! ")) {
      EXPECT_EQ(message_of(got), "t: line 1: " + expected.substr(expected.find(": ") + 2)) << source;
    } else {
      EXPECT_EQ(got.ok() ? *got : message_of(got), expected) << source;
    }
  }
}

TEST(JinjaTemplate, NewlinesAreNormalised) {
  EXPECT_EQ(*render("a\r\nb\rc\r\n"), "a\nb\nc");
  EXPECT_EQ(*render("{{ 'a\r\nb' }}"), "a\nb");
}

TEST(JinjaTemplate, SyntaxErrorsNameLineAndCause) {
  const struct {
    const char *source, *error;
  } cases[] = {
      {"a\n{% if x %}\nb", "t: line 3: expected 'elif' or 'else' or 'endif', got end of template"},
      {"{% for x in y %}", "t: line 1: expected 'else' or 'endfor', got end of template"},
      {"{% endif %}", "t: line 1: expected a tag, got 'endif'"},
      {"\n\n{{ 1 + }}", "t: line 3: expected an expression, got '}}'"},
      {"{{ x", "t: line 1: expected '}}', got end of template"},
      {"\n{{\n x", "t: line 2: expected '}}', got end of template"},
      {"{% if x ", "t: line 1: expected '%}', got end of template"},
      {"{# open", "t: line 1: expected '#}', got end of template"},
      {"{% raw %}x", "t: line 1: expected 'endraw', got end of template"},
      {"{{ 'open }}", "t: line 1: expected the end of a string, got end of template"},
      {"{{ (1, 2] }}", "t: line 1: expected ')', got ']'"},
      {"{{ ] }}", "t: line 1: expected an expression, got ']'"},
      {"{{ a ? b }}", "t: line 1: expected an expression, got '?'"},
      {"{{ a b }}", "t: line 1: expected '}}', got 'b'"},
      {"{{ 1x }}", "t: line 1: expected a decimal number, got '1x'"},
      {"{{ '\\ud800' }}", "t: line 1: expected a code point after '\\u', got 'd800'"},
      {"\n{{ x|nosuch }}", "t: line 2: no filter named 'nosuch'"},
      {"{{ x is nosuch }}", "t: line 1: no test named 'nosuch'"},
      {"{{ x is string is string }}", "t: line 1: expected one test, not a chain of them, got 'is'"},
      {"\n{% include 'x' %}", "t: line 2: no tag named 'include' in chat templates"},
      {"{% nosuch %}", "t: line 1: expected a tag, got 'nosuch'"},
      {"{% break %}", "t: line 1: expected 'break' inside a loop"},
      {"{% for x in y %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}",
       "t: line 1: expected 'continue' inside a loop"},
      {"{% set none = 1 %}", "t: line 1: expected a name that can be assigned to, got 'none'"},
      {"{% set 1 = 1 %}", "t: line 1: expected a name, got '1'"},
      {"{% for x in y recursive %}{% endfor %}", "t: line 1: recursive loops are not supported"},
      {"{{ f(*x) }}", "t: line 1: expected plain arguments, got * unpacking"},
      {"{{ f(a=1, 2) }}", "t: line 1: expected a keyword argument, got '2'"},
      {"{% macro m(a=1, b) %}{% endmacro %}",
       "t: line 1: expected a default value, as the parameter before has one, got ')'"},
      {"{{ 99999999999999999999 }}", "t: line 1: expected integers of at most 64 bits, got 99999999999999999999"},
      {"\xff", "t: expected valid UTF-8, got other bytes"},
  };
  for (const auto& c : cases) EXPECT_EQ(message_of(render(c.source)), c.error) << c.source;
}

TEST(JinjaTemplate, RenderErrorsNameTheLine) {
  EXPECT_EQ(message_of(render("a\n{% if true %}\n{{ x.y }}\n{% endif %}")), "t: line 3: 'x' is undefined");
  EXPECT_EQ(message_of(render("{% macro m() %}\n\n{{ raise_exception('no') }}{% endmacro %}\n{{ m() }}")),
            "t: line 3: no");
  EXPECT_EQ(message_of(render("{{ [\n1,\n1 // 0] }}")), "t: line 3: integer division or modulo by zero");
  EXPECT_EQ(message_of(render("{{ 1\n+ 'a' }}")), "t: line 2: unsupported operand type(s) for +: 'int' and 'str'");
  const auto error = render("{{ raise_exception('no') }}").status();
  EXPECT_EQ(error.code(), Code::invalid_argument);
}

TEST(JinjaTemplate, IntegersStayWithin64Bits) {
  for (const char* source : {"{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 2 ** 63 }}",
                             "{{ 9223372036854775807 * 2 }}", "{{ -(-9223372036854775807 - 1) }}",
                             "{{ (-9223372036854775807 - 1) // -1 }}", "{{ (-9223372036854775807 - 1)|abs }}"}) {
    EXPECT_NE(message_of(render(source)).find("64 bits"), std::string::npos) << source;
  }
  EXPECT_EQ(*render("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
  EXPECT_EQ(*render("{{ 1 == 1.0 }}{{ 9223372036854775807 == 9223372036854775807.0 }}"), "TrueFalse");
  EXPECT_NE(message_of(render("{{ 1e300|int }}")).find("64 bits"), std::string::npos);
}

TEST(JinjaTemplate, NamespacesAndMacrosStayInTheirScope) {
  EXPECT_EQ(message_of(render("{% set ns = namespace() %}{% set ns.me = ns %}")),
            "t: line 1: expected a value that can be stored, got a Namespace");
  EXPECT_EQ(message_of(render("{% macro m() %}{% endmacro %}{{ [m] }}")),
            "t: line 1: expected a value that can be stored, got a Macro");
  EXPECT_EQ(message_of(render("{% for x in [1] %}{{ {'l': loop} }}{% endfor %}")),
            "t: line 1: expected a value that can be stored, got a LoopContext");
  EXPECT_EQ(*render("{% macro m(f) %}{{ f(2) }}{% endmacro %}{% macro g(x) %}<{{ x }}>{% endmacro %}{{ m(g) }}"),
            "<2>");
}

// Every one of these would run for a very long time, fill the memory or overflow the stack.
TEST(JinjaTemplate, BudgetsHold) {
  const std::string deep_parens = "{{ " + std::string(10'000, '(') + "1" + std::string(10'000, ')') + " }}";
  std::string chain = "{{ 1", nested_if, minus = "{{ " + std::string(10'000, '-') + "1 }}", nots = "{{ ";
  for (int i = 0; i < 10'000; ++i) {
    chain += " + 1";
    nested_if += "{% if x %}";
    nots += "not ";
  }
  std::string dots = "{{ x", conditionals = "{{ 1";
  for (int i = 0; i < 10'000; ++i) {
    dots += ".a";
    conditionals += " if 1 else 1";
  }
  const std::string sources[] = {
      deep_parens,
      chain + " }}",
      dots + " }}",
      conditionals + " }}",
      nots + "1 }}",
      nested_if,
      minus,
      "{{ " + std::string(10'000, '[') + std::string(10'000, ']') + " }}",
      "{{ 'a' * 1000000000 }}",
      "{{ 'a' * 9223372036854775807 }}",
      "{{ [0] * 1000000000 }}",
      "{{ range(1000000000)|length }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
      "{{ ns.x|tojson }}",
      "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(n) %}{% for i in range(10) %}{{ m(n + 1) }}{% endfor %}{% endmacro %}{{ m(0) }}",
      "{% for i in range(1000) %}{{ 'abcdefghij' * 1000 }}{% endfor %}",
      "{{ ('a' * 4000000)|indent(4000000, true) }}",
      "{{ ('a' * 4000000).replace('a', 'bbbbbbbb') }}",
      "{{ ('a' * 4000000).replace('', 'b') }}",
      "{{ ('a ' * 2000000).split()|length }}",
      "{{ ('a' * 1000000)|list|join('b' * 1000) }}",
      "{{ [[1]]|tojson(indent=1000000000) }}",
      "{{ 1e308|round(-9223372036854775807) }}{{ 'x' * (2 ** 62) }}",
      "{% set x %}{% for i in range(1000000) %}aaaaaaaaaaaaaaaaaaaa{% endfor %}{% endset %}",
  };
  for (const std::string& source : sources) {
    const auto got = render(source);
    EXPECT_FALSE(got.ok()) << source.substr(0, 80);
    EXPECT_NE(message_of(got).find("at most"), std::string::npos) << source.substr(0, 80) << ": " << message_of(got);
  }
}

TEST(JinjaTemplate, LimitsAreThoseGiven) {
  const char* loop = "{% for i in range(1000) %}{{ i }}{% endfor %}";
  EXPECT_TRUE(render(loop).ok());
  EXPECT_EQ(message_of(render(loop, {}, {.steps = 500})),
            "t: line 1: expected at most 500 steps of rendering, got more");
  EXPECT_NE(message_of(render(loop, {}, {.output_bytes = 1000})).find("at most 1000 bytes of text"), std::string::npos);
  EXPECT_NE(message_of(render(loop, {}, {.cpu_ms = 0})).find("at most 0 ms of rendering"), std::string::npos);
  const char* macro = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(63) }}";
  EXPECT_TRUE(render(macro).ok()) << message_of(render(macro));
  EXPECT_NE(message_of(render(macro, {}, {.cpu_ms = 60'000, .macro_depth = 63})).find("63 levels of macro"),
            std::string::npos);
}

std::string free_names(std::string_view source) {
  const auto parsed = Template::parse(source, "t");
  EXPECT_TRUE(parsed.ok()) << parsed.status().text();
  std::string names;
  for (const auto& free : parsed->free_names()) names += (free.scalar ? "" : "*") + free.name + " ";
  return names;
}

TEST(JinjaTemplate, FreeNamesAreWhatIsReadBeforeItIsSet) {
  EXPECT_EQ(free_names("{{ a }}{% set b = 1 %}{{ b }}{{ c.d }}{{ e() }}{{ f[0] }}{% for g in h %}{{ g }}{% endfor %}"),
            "a *c *e *f *h ");
  EXPECT_EQ(free_names("{% set a = a|default(1) %}{{ a }}"), "a ");
  EXPECT_EQ(free_names("{% if b is defined %}{% set a = 1 %}{% endif %}{{ a }}"), "b a ");
  EXPECT_EQ(free_names("{% if b %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}"), "b ");
  EXPECT_EQ(free_names("{% for x in [1] %}{% set a = 1 %}{{ a }}{{ loop.index }}{% endfor %}{{ a }}"), "a ");
  EXPECT_EQ(free_names("{% macro m(p, q=r) %}{{ p }}{{ q }}{{ z }}{% endmacro %}{{ m(1) }}{{ p }}"), "r z p ");
  EXPECT_EQ(free_names("{% set ns = namespace(x=k) %}{% set ns.x = 1 %}{% with w=1 %}{{ w }}{% endwith %}{{ w }}"),
            "*namespace k w ");
  EXPECT_EQ(free_names("{% set t %}{{ u }}{% endset %}{% filter upper %}{{ v }}{% endfilter %}{{ t }}"), "u v ");
}

}  // namespace
}  // namespace nibble::text::jinja

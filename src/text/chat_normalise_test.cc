#include "text/chat_normalise.h"

#include <gtest/gtest.h>

namespace nibble::text {
namespace {

// Templates reduced to the trait in question.
constexpr const char* kStrict = R"({%- set ns = namespace(user=false) -%}
{%- for m in messages -%}
{%- if m.role == 'system' and not loop.first -%}{{ raise_exception('late system') }}{%- endif -%}
{%- if m.role not in ['system', 'user', 'assistant', 'tool'] -%}{{ raise_exception('role') }}{%- endif -%}
{%- if m.role == 'user' -%}{%- set ns.user = true -%}{%- endif -%}
[{{ m.role }}]{{ m.content }}
{%- for c in m.tool_calls or [] -%}{%- for k, v in c.function.arguments | items -%}({{ k }}={{ v }}){%- endfor -%}{%- endfor -%}
{%- endfor -%}
{%- if not ns.user -%}{{ raise_exception('no user') }}{%- endif -%})";
constexpr const char* kLoose =
    "{%- for m in messages -%}[{{ m.role }}]{{ m.content }}{%- for c in m.tool_calls or [] -%}"
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}"
    "{%- endfor -%}{%- endfor -%}";

// Json{x} would be x itself.
Json chat(std::initializer_list<Json> messages) {
  Json list = Json::array();
  for (const Json& one : messages) list.push_back(one);
  return list;
}

Json message(const char* role, Json content) {
  return {{"role", role}, {"content", std::move(content)}};
}

class Normalise : public testing::Test {
 protected:
  std::string render(const char* source, const Json& messages) {
    const auto chat_template = ChatTemplate::parse(source, "t");
    EXPECT_TRUE(chat_template.ok()) << chat_template.status().text();
    const auto normal = normalise_messages(messages, *chat_template);
    if (!normal.ok()) return normal.status().text();
    const auto rendered = chat_template->render(*normal, {});
    return rendered.ok() ? rendered->text : rendered.status().text();
  }
};

TEST_F(Normalise, DeveloperBecomesSystem) {
  EXPECT_EQ(render(kStrict, {message("developer", "d"), message("user", "u")}), "[system]d[user]u");
}

TEST_F(Normalise, LeadingSystemMessagesAreJoined) {
  EXPECT_EQ(render(kStrict, {message("system", "a"), message("developer", "b"), message("user", "u")}),
            "[system]a\n\nb[user]u");
}

TEST_F(Normalise, ALateSystemMessageStaysInPlace) {
  const Json messages = {message("system", "a"), message("user", "u"), message("system", "s"), message("user", "v")};
  EXPECT_EQ(render(kStrict, messages), "[system]a[user]u[user]s[user]v");
  EXPECT_EQ(render(kLoose, messages), "[system]a[user]u[system]s[user]v");
}

TEST_F(Normalise, AMissingUserIsMadeWhereOneIsNeeded) {
  EXPECT_EQ(render(kStrict, {message("system", "a"), message("system", "b")}), "[system]a[user]b");
  EXPECT_EQ(render(kStrict, {message("system", "a"), message("system", "b"), message("system", "c")}),
            "[system]a\n\nb[user]c");
  EXPECT_EQ(render(kStrict, chat({message("system", "a")})), "[system]a[user]Hello.");
  EXPECT_EQ(render(kStrict, Json::array()), "[user]Hello.");
  EXPECT_EQ(render(kLoose, chat({message("system", "a")})), "[system]a");
}

TEST_F(Normalise, ArgumentsBecomeObjects) {
  const auto call = [](Json arguments) {
    return Json{
        {"role", "assistant"},
        {"content", nullptr},
        {"tool_calls", {{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", std::move(arguments)}}}}}}};
  };
  EXPECT_EQ(render(kStrict, {message("user", "u"), call("{\"a\": \"x\"}")}), "[user]u[assistant](a=x)");
  EXPECT_EQ(render(kStrict, {message("user", "u"), call(Json{{"a", 1}})}), "[user]u[assistant](a=1)");
  EXPECT_EQ(render(kStrict, {message("user", "u"), call("")}), "[user]u[assistant]");
  EXPECT_EQ(render(kStrict, {message("user", "u"), call(nullptr)}), "[user]u[assistant]");
  EXPECT_EQ(render(kStrict, {message("user", "u"), call("{oops")}), "[user]u[assistant](arguments={oops)");
  EXPECT_EQ(render(kLoose, {message("user", "u"), call("{oops")}), "[user]u[assistant]{oops");
}

TEST_F(Normalise, ContentBecomesOneString) {
  EXPECT_EQ(
      render(kLoose, chat({message("user", {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}})})),
      "[user]ab");
  EXPECT_EQ(render(kLoose, chat({Json{{"role", "user"}}})), "[user]");
  EXPECT_NE(render(kLoose, chat({message("user", chat({Json{{"type", "image_url"}}}))})).find("image_url"),
            std::string::npos);
  EXPECT_NE(render(kLoose, chat({message("user", 5)})).find("messages[0].content"), std::string::npos);
  EXPECT_NE(render(kLoose, chat({Json{{"content", "x"}}})).find("messages[0]"), std::string::npos);
}

TEST_F(Normalise, ReasoningHasOneName) {
  constexpr const char* kShow = "{% for m in messages %}{{ m.reasoning_content }};{% endfor %}";
  const auto with = [](Json rest) {
    rest["role"] = "assistant";
    return rest;
  };
  EXPECT_EQ(render(kShow, {with({{"reasoning", "a"}}), with({{"reasoning", "b"}, {"reasoning_content", nullptr}}),
                           with({{"reasoning", "x"}, {"reasoning_content", "c"}})}),
            "a;b;c;");
}

TEST_F(Normalise, AToolResultWithoutACallIsAccepted) {
  EXPECT_EQ(render(kStrict, {message("user", "u"), message("tool", "r")}), "[user]u[tool]r");
}

TEST(NormaliseTools, DropsStrictAndTitlesButNotAParameterOfThatName) {
  const Json tools = *parse_json(
      R"([{"type":"function","strict":true,"function":{"name":"f","strict":true,"parameters":{"title":"F","type":"object",
          "properties":{"title":{"title":"Title","type":"string"},"n":{"title":"N","enum":[{"title":"kept"}]}},
          "$defs":{"title":{"title":"T","items":{"title":"I"}}}}}}])",
      "tools");
  EXPECT_EQ(normalise_tools(tools).dump(),
            R"([{"type":"function","function":{"name":"f","parameters":{"type":"object",)"
            R"("properties":{"title":{"type":"string"},"n":{"enum":[{"title":"kept"}]}},)"
            R"("$defs":{"title":{"items":{}}}}}}])");
  EXPECT_TRUE(normalise_tools(Json()).is_null());
}

}  // namespace
}  // namespace nibble::text

#include "text/chat_parser.h"

#include "text/parser_test_support.h"

namespace nibble::text {
namespace {

ParserOptions with_tools(bool reasoning_open = false) {
  ParserOptions options;
  options.tools = weather_tools();
  options.reasoning_open = reasoning_open;
  return options;
}

ParsedMessage message(std::string content, std::string reasoning = {}, std::vector<ParsedCall> calls = {}) {
  return {std::move(content), std::move(reasoning), std::move(calls)};
}

ParsedCall weather(std::string arguments, bool healed = false) {
  return {"get_weather", std::move(arguments), healed};
}

struct Case {
  const char* output;
  ParsedMessage expected;
};

// Every case whole and byte by byte.
void expect_all(const ParserOptions& options, const std::vector<Case>& cases, bool cut = false) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.output);
    EXPECT_EQ(replay(options, whole(c.output), cut).message, c.expected);
    EXPECT_EQ(replay(options, per_byte(c.output), cut, false).message, c.expected);
  }
}

TEST(ChatParser, BlanksBesideMarkupAreDroppedOthersKept) {
  expect_all(with_tools(), {
                               {"", message("")},
                               {" \n a  b \n", message(" \n a  b \n")},
                               {"  \n", message("  \n")},
                               {"a \n <tool_call> \n </tool_call> \n b", message("a\nb")},
                               {"a</tool_call>", message("a")},
                               {"</tool_call>  a", message("a")},
                               {"a\n\n</think>\n\nb", message("a\nb")},
                           });
}

TEST(ChatParser, ThinkTagsInContent) {
  expect_all(with_tools(), {
                               {"<think>\nx\n</think>\n\nHi.", message("Hi.", "x")},
                               {"  <think>x</think>Hi.", message("Hi.", "x")},
                               {"<think>x", message("", "x")},
                               {"Hi. <think> is a tag.", message("Hi. <think> is a tag.")},
                               {"Hi. </think> is a tag.", message("Hi. </think> is a tag.")},
                               {"Hi.\n<think>\nx\n</think>\nyou", message("Hi.\nyou", "x")},
                               {"<think>a</think>b\n<think>\nc</think>d", message("b\nd", "a\nc")},
                               {"Hi.<think>", message("Hi.")},
                               {"Hi.</think>", message("Hi.")},
                               {"Hi.</think><tool_call>", message("Hi.")},
                               {"<think></think><think>\n \n</think>Hi.", message("Hi.")},
                               {"Hi. <thin", message("Hi. <thin")},
                               {"a<<think> b", message("a<<think> b")},
                           });
}

TEST(ChatParser, ReasoningOpenAtTheStart) {
  expect_all(with_tools(true), {
                                   {"x", message("", "x")},
                                   {" <think> <think>\n x \n", message("", "x")},
                                   {"x <think> y</think>z", message("z", "x <think> y")},
                                   {"x</think>", message("", "x")},
                                   {"x\n<tool_call>{\"name\":\"get_time\"}</tool_call>\nz",
                                    message("z", "x", {{"get_time", "{}", false}})},
                                   {"x<function=get_time></function>z", message("z", "x", {{"get_time", "{}", false}})},
                                   {"x<tool_call>y", message("y", "x")},
                                   {"</thin", message("", "</thin")},
                               });
}

TEST(ChatParser, WithoutToolsCallsAreText) {
  const char* call = "<tool_call>{\"name\": \"a\"}</tool_call> <function=f>";
  expect_all({}, {{call, message(call)}, {"<think>x</think>y", message("y", "x")}});
  ParserOptions none = with_tools();
  none.dialect = ToolDialect::none;
  expect_all(none, {{call, message(call)}});
}

TEST(ChatParser, OneDialectTakesTheOtherAsContent) {
  ParserOptions hermes = with_tools();
  hermes.dialect = ToolDialect::hermes;
  expect_all(hermes, {{"<tool_call>\n<function=f>\n</function>\n</tool_call>", message("<function=f>\n</function>")}});
  ParserOptions xml = with_tools();
  xml.dialect = ToolDialect::qwen3_xml;
  expect_all(xml, {{"<tool_call>\n{\"name\": \"f\"}\n</tool_call>", message("{\"name\": \"f\"}")}});
}

TEST(ChatParser, SuppressedCallsVanishAndAreCounted) {
  ParserOptions options = with_tools();
  options.suppress_calls = true;
  for (const char* output : {"a <tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"X\"}}</tool_call> b",
                             "a <function=get_weather><parameter=city>X</parameter></function> b"}) {
    const Replay run = replay(options, whole(output));
    EXPECT_EQ(run.message, message("a\nb"));
    EXPECT_EQ(run.discarded, std::string_view("get_weather{\"city\": \"X\"}").size());
  }
}

TEST(ChatParser, HermesForms) {
  expect_all(
      with_tools(),
      {
          {R"(<tool_call>{"arguments": {"city": "A"}, "name": "get_weather"}</tool_call>)",
           message("", "", {weather(R"({"city": "A"})")})},
          {R"(<tool_call>{"id": {"a": ["}"]}, "name": "get_weather", "parameters": {"days":1}, "x": 1}</tool_call>)",
           message("", "", {weather(R"({"days":1})")})},
          {R"(<tool_call>{"name": "get_weather", "arguments": null}</tool_call>)", message("", "", {weather("{}")})},
          {R"(<tool_call>{"name": "get_weather", "arguments": ""}</tool_call>)", message("", "", {weather("{}")})},
          {R"(<tool_call>{"name": "get_weather", "arguments": {}, "arguments": {"a": 1}}</tool_call>)",
           message("", "", {weather("{}")})},
          {R"(<tool_call>{"name": "a"} {"name": "b"}</tool_call>{"name": "c"})",
           message(R"({"name": "c"})", "", {{"a", "{}", false}, {"b", "{}", false}})},
          {R"(<tool_call>{"name": "a", "arguments": {"x": 1}}}</tool_call> ok)",
           message("ok", "", {{"a", R"({"x": 1})", false}})},
          {R"(<tool_call>{"name": "a"} Done.)", message("Done.", "", {{"a", "{}", false}})},
          {R"(<tool_call>{"na\u006de": "a\u0062"}</tool_call>)", message("", "", {{"ab", "{}", false}})},
      });
}

TEST(ChatParser, HermesThatIsNoCallIsContent) {
  expect_all(
      with_tools(),
      {
          {R"(a<tool_call>{"name": 5}</tool_call>b)", message("a\n{\"name\": 5}\nb")},
          {R"(<tool_call>{"name": ""}</tool_call>)", message(R"({"name": ""})")},
          {R"(<tool_call>{"arguments": {"a": 1}}</tool_call>)", message(R"({"arguments": {"a": 1}})")},
          {R"(<tool_call>{"name": "f", "arguments": [1]}</tool_call>)", message(R"({"name": "f", "arguments": [1]})")},
          {R"(<tool_call>{"name": "f", "arguments": "x"}</tool_call>)", message(R"({"name": "f", "arguments": "x"})")},
          {R"(<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>)",
           message(R"({"name": "f", "arguments": {"a": }})")},
          {R"(<tool_call>{"a <think> <tool_call> b": oops}</tool_call>)", message("{\"a\nb\": oops}")},
          {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\"", message("", "", {{"f", "{}", true}})},
          {R"(<tool_call>{"name": "f)", message(R"({"name": "f)")},
          {"<tool_call>plain</tool_call>", message("plain")},
      });
}

TEST(ChatParser, HermesThatBreaksOrIsCutIsHealed) {
  const auto call = [](const char* arguments) { return message("", "", {{"f", arguments, true}}); };
  expect_all(with_tools(),
             {
                 {R"(<tool_call>{"name": "f", "arguments": {"a": "x)", call(R"({"a": "x"})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": "x\)", call(R"({"a": "x"})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": "x\ud83d)", call(R"({"a": "x"})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 3, "b)", call(R"({"a": 3})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 3, "b": tr)", call(R"({"a": 3})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 1.)", call(R"({"a": 1})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": [1, {"b": 2},)", call(R"({"a": [1, {"b": 2}]})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 1})", call(R"({"a": 1})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>)", call(R"({"a": 1})")},
                 {R"(<tool_call>{"name": "f", "arguments": {"a": 1 oops}}</tool_call>)", call(R"({"a": 1})")},
                 {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x\ny\"}}</tool_call>", call(R"({"a": "x"})")},
                 {R"(<tool_call>{"arguments": {"a": 1}, "name": "f")", call(R"({"a": 1})")},
                 {R"(<tool_call>{"name": "f", "arguments": "{\"a\": 1}")", call(R"({"a": 1})")},
                 {R"(<tool_call>{"name": "f", "arguments": "{\"a)", call("{}")},
             });
  expect_all(with_tools(), {{R"(<tool_call>{"name": "f", "arguments": {"a": 1 oops}}</tool_call> after)",
                             message("after", "", {{"f", R"({"a": 1})", true}})}});
  const Replay run = replay(with_tools(), whole(R"(<tool_call>{"name": "f", "arguments": {"a": 1 oops}}</tool_call>)"));
  EXPECT_EQ(run.discarded, std::string_view(" oops}}").size());
}

TEST(ChatParser, XmlForms) {
  expect_all(with_tools(),
             {
                 {"<function=\"get_weather\"><parameter='city'>A</parameter></function>",
                  message("", "", {weather(R"({"city": "A"})")})},
                 {"<function=get_weather\n<parameter=city<b>\n</parameter></function>",
                  message("", "", {weather(R"({"city": "<b>"})")})},
                 {"<function=get_weather><parameter=city>\n\nA\n\n</parameter></function>",
                  message("", "", {weather(R"({"city": "\nA\n"})")})},
                 {"<function=get_weather><parameter=city\n\nA</parameter></function>",
                  message("", "", {weather(R"({"city": "\nA"})")})},
                 {"<function=get_weather><parameter=city>\n</parameter></function>",
                  message("", "", {weather(R"({"city": ""})")})},
                 {"<function=get_weather><parameter=city></parameter></function>",
                  message("", "", {weather(R"({"city": ""})")})},
                 {"<function=get_weather><parameter=city><tool_call><function=x></parameter></function>",
                  message("", "", {weather(R"({"city": "<tool_call><function=x>"})")})},
                 {"<function=get_weather> noise <parameter=days>1</parameter> </parameter> <b></function>b",
                  message("b", "", {weather(R"({"days": 1})")})},
                 {"<function=f><parameter=\"q\">a\"b</parameter></function>",
                  message("", "", {{"f", R"({"q": "a\"b"})", false}})},
                 {"<function=get_time><function=get_weather><parameter=days>x</tool_call>b",
                  message("b", "", {{"get_time", "{}", false}, weather(R"({"days": "x"})")})},
                 {"<function=get_time><tool_call>{\"name\": \"get_time\"}",
                  message("", "", {{"get_time", "{}", false}, {"get_time", "{}", false}})},
                 {"a <function=> b", message("a\nb")},
                 {"<function= \n<parameter=a>", message("<parameter=a>")},
                 {"<tool_call><function=get_", message("get_")},
             });
  const Replay run = replay(
      with_tools(), whole("<function=f> noise <parameter=a>1</parameter><parameter=a>22</parameter></function>"));
  EXPECT_EQ(run.discarded, std::string_view("noisea22").size());
}

TEST(ChatParser, XmlThatIsCutIsHealed) {
  expect_all(
      with_tools(),
      {
          {"<function=get_weather>", message("", "", {weather("{}", true)})},
          {"<function=get_weather><parameter=ci", message("", "", {weather("{}", true)})},
          {"<function=get_weather><parameter=city>", message("", "", {weather(R"({"city": ""})", true)})},
          {"<function=get_weather><parameter=city>A\n</param", message("", "", {weather(R"({"city": "A"})", true)})},
          {"<function=get_weather><parameter=days>1</parameter><parameter=city>",
           message("", "", {weather(R"({"days": 1, "city": ""})", true)})},
          {"<function=get_weather><parameter=days>3", message("", "", {weather(R"({"days": 3})", true)})},
      },
      /*cut=*/true);
}

TEST(ChatParser, ALimitCutsTagsAwayAnEndDoesNot) {
  expect_all(with_tools(), {{"Hi. <func", message("Hi. <func")}, {"a <", message("a <")}}, /*cut=*/false);
  expect_all(with_tools(), {{"Hi. <func", message("Hi. ")}, {"a <", message("a <")}}, /*cut=*/true);
}

// What a client sees of arguments that are still being written.
TEST(ChatParser, StreamsArgumentsAsTheyCome) {
  ChatParser parser(with_tools());
  std::vector<ParseEvent> events;
  const auto feed = [&](std::string_view text) {
    events.clear();
    parser.feed(text, events);
    return events;
  };
  using E = ParseEvent;
  EXPECT_TRUE(feed(R"(<tool_call>{"name": "get_weather", "arguments": {"ci)").empty());
  EXPECT_TRUE(feed(R"(ty": )").empty());
  EXPECT_EQ(feed("\"Da"), (std::vector<E>{{E::call_begin, "get_weather"}, {E::call_args, "{\"city\": \"Da"}}));
  EXPECT_EQ(feed("l\\"), (std::vector<E>{{E::call_args, "l"}}));
  EXPECT_EQ(feed("n\", \"d"), (std::vector<E>{{E::call_args, "\\n\""}}));
  EXPECT_EQ(feed("ays\": 1"), (std::vector<E>{{E::call_args, ", \"days\": 1"}}));
  EXPECT_EQ(feed("2}} "), (std::vector<E>{{E::call_args, "2}"}, {E::call_end, ""}}));
  EXPECT_EQ(feed("</tool_call>\n<function=get_weather>"), (std::vector<E>{{E::call_begin, "get_weather"}}));
  EXPECT_EQ(feed("<parameter=city>\nDa\n"), (std::vector<E>{{E::call_args, "{\"city\": \"Da"}}));
  EXPECT_EQ(feed("l\n</"), (std::vector<E>{{E::call_args, "\\nl"}}));
  EXPECT_EQ(feed("parameter><parameter=days>1"), (std::vector<E>{{E::call_args, "\""}}));
  EXPECT_EQ(feed("2</parameter>"), (std::vector<E>{{E::call_args, ", \"days\": 12"}}));
  EXPECT_EQ(feed("</function>ok"), (std::vector<E>{{E::call_args, "}"}, {E::call_end, ""}, {E::content, "ok"}}));
}

// A parser may be moved while a call is under way, as a server does with its sessions.
TEST(ChatParser, MovesInTheMiddleOfACall) {
  std::vector<ParseEvent> events;
  ChatParser first(with_tools());
  first.feed("<function=get_weather><parameter=days>", events);
  ChatParser second(std::move(first));
  second.feed("3</parameter></function>", events);
  second.finish(false, events);
  MessageBuilder builder;
  builder.add(events);
  EXPECT_EQ(builder.message(), message("", "", {weather(R"({"days": 3})")}));
}

TEST(Dialect, NamesAndTemplates) {
  for (const auto dialect : {ToolDialect::automatic, ToolDialect::hermes, ToolDialect::qwen3_xml, ToolDialect::none}) {
    EXPECT_EQ(dialect_named(name(dialect)), dialect);
  }
  EXPECT_EQ(dialect_named("xml"), std::nullopt);
  EXPECT_EQ(dialect_of_template("{{ '<tool_call>\\n<function=' + name }}"), ToolDialect::qwen3_xml);
  EXPECT_EQ(dialect_of_template(R"({{ '<tool_call>\n{"name": "' }})"), ToolDialect::hermes);
  EXPECT_EQ(dialect_of_template(R"({{ "<tool_call>\n{\"name\": " }})"), ToolDialect::hermes);
  EXPECT_EQ(dialect_of_template("{{ message.content }}"), ToolDialect::automatic);
}

}  // namespace
}  // namespace nibble::text

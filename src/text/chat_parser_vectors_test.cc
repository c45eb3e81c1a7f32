// The 96 recorded outputs of tests/golden/conformance/chat_parsing.jsonl, whole, byte by byte, character by character
// and in random chunks.
#include <fstream>
#include <map>
#include <optional>

#include "text/parser_test_support.h"

namespace nibble::text {
namespace {

struct Expected {
  std::string content, reasoning;
  std::vector<ParsedCall> calls;
};

struct Vector {
  std::string id;
  ParserOptions options;
  std::string output;
  Expected expected;
};

// What the curated lines, which carry no expectation in the file, must give.
const std::map<std::string, Expected>& curated() {
  static const std::vector<ParsedCall> city_x = {{"get_weather", R"({"city": "X"})", false}};
  static const std::vector<ParsedCall> city_a = {{"get_weather", R"({"city": "A"})", false}};
  static const std::vector<ParsedCall> unicode = {
      {"get_weather", R"({"city": "ಬೆಂಗಳೂರು 🌧️"})", false}};
  static const std::vector<ParsedCall> time = {{"get_time", "{}", false}};
  const auto weather = [](const char* arguments) { return std::vector<ParsedCall>{{"get_weather", arguments, false}}; };
  static const std::map<std::string, Expected> table = {
      {"h/plain", {"Just text with < and > and {\"name\": 1}.", "", {}}},
      {"h/nl-less", {"", "", city_x}},
      {"x/inline", {"", "", city_x}},
      {"h/xml-in-hermes", {"", "", city_x}},
      {"x/hermes-json", {"", "", city_x}},
      {"h/whitespace", {"", "", city_x}},
      {"h/args-string", {"", "", city_x}},
      {"h/brace-in-string", {"", "", weather(R"({"city": "a}b{c\"}}"})")}},
      {"h/bool-args", {"", "", weather(R"({"metric": true})")}},
      {"h/number-30", {"", "", weather(R"({"days": 30})")}},
      {"h/no-args-key", {"", "", time}},
      {"x/no-args", {"", "", time}},
      {"h/content-then-call", {"Let me check.", "", city_a}},
      {"h/invalid-json", {R"({"name": "get_weather", "arguments": {"city": })", "", {}}},
      {"h/unicode", {"", "", unicode}},
      {"x/unicode", {"", "", unicode}},
      {"h/tag-in-string", {"", "", weather(R"({"city": "</tool_call>"})")}},
      {"h/nested", {"", "", weather(R"({"city": "A", "opts": {"a": [1, {"b": null}]}, "tags": ["x", "y"]})")}},
      {"h/unknown-fn", {"", "", {{"rm_rf", "{}", false}}}},
      {"x/plain", {"Hello there.", "", {}}},
      {"x/types",
       {"", "", weather(R"({"city": "5", "days": 3, "metric": true, "f": 2.50, "opts": {"a": 1}, "tags": ["1", "2"],
                            "note": null})")}},
      {"x/bad-int", {"", "", weather(R"({"days": "2026-01-15"})")}},
      {"x/multiline", {"", "", weather(R"({"city": "a\n b\n\nc"})")}},
      {"x/leading-indent", {"", "", weather(R"({"city": "    indented"})")}},
      {"x/missing-param-close", {"", "", weather(R"({"city": "Dallas", "note": "TX"})")}},
      {"x/dup-close", {"", "", city_a}},
      {"x/dup-param", {"", "", city_a}},
      {"x/eos-mid", {"", "", {{"get_weather", R"({"city": "Dal"})", true}}}},
      {"x/no-gt", {"", "", weather(R"({"city": "Dallas"})")}},
      {"x/quotes", {"", "", weather(R"({"city": "say \"hi\" \\ back"})")}},
      {"x/two-fn-one-wrapper", {"", "", {{"get_weather", R"({"city": "A"})", false}, {"get_time", "{}", false}}}},
      {"x/trailing-text", {"Done.", "", city_a}},
      {"r/think-normal", {"Hello.", "I think.", {}}},
      {"r/think-explicit-open", {"Hello.", "I think.", {}}},
      {"r/no-think-clean", {"Hello.", "", {}}},
      {"r/no-think-stray-close", {"Hello.", "", {}}},
      {"r/truncated", {"", "I think and think", {}}},
      {"r/think-then-call", {"", "Need it.", city_a}},
      {"r/think-in-content", {"The tag <think> is used so.", "x", {}}},
  };
  return table;
}

std::string trim_right(std::string text) {
  text.erase(text.find_last_not_of(kBlanks) + 1);
  return text;
}

std::string trim(std::string text) {
  text = trim_right(text);
  return text.erase(0, std::min(text.find_first_not_of(kBlanks), text.size()));
}

// One upstream vector echoes the opening tag in its expected reasoning.
std::string expected_reasoning(std::string text) {
  text = trim(text);
  if (text.starts_with("<think>")) text.erase(0, 7);
  return trim(text);
}

Expected expected_of(const Json& line) {
  const Json& expect = line["expect"];
  if (expect.is_null()) return curated().at(line["id"]);
  Expected expected = {expect["content"], expect["reasoning"], {}};
  for (const Json& call : expect["tool_calls"]) expected.calls.push_back({call["name"], call["arguments"], false});
  return expected;
}

const std::vector<Vector>& vectors() {
  static const std::vector<Vector> all = [] {
    std::vector<Vector> read;
    std::ifstream file(NIBBLE_SOURCE_DIR "/tests/golden/conformance/chat_parsing.jsonl");
    for (std::string text; std::getline(file, text);) {
      const Json line = Json::parse(text);
      Vector vector;
      vector.id = line["id"];
      vector.options.tools = line["tools"];
      vector.options.reasoning_open = line["enable_thinking"];
      vector.output = line["output"];
      vector.expected = expected_of(line);
      read.push_back(std::move(vector));
    }
    return read;
  }();
  return all;
}

void expect_message(const ParsedMessage& got, const Expected& expected) {
  EXPECT_EQ(trim_right(got.content), trim_right(expected.content));
  EXPECT_EQ(trim(got.reasoning), expected_reasoning(expected.reasoning));
  ASSERT_EQ(got.calls.size(), expected.calls.size());
  for (size_t i = 0; i < got.calls.size(); ++i) {
    EXPECT_EQ(got.calls[i].name, expected.calls[i].name);
    EXPECT_EQ(got.calls[i].healed, expected.calls[i].healed);
    // ordered_json prints keys in their order, so equal text is equal values in equal order.
    EXPECT_EQ(Json::parse(got.calls[i].arguments).dump(), Json::parse(expected.calls[i].arguments).dump());
  }
}

TEST(ChatParserVectors, AllLinesAreThere) {
  EXPECT_EQ(vectors().size(), 96u);
  EXPECT_EQ(curated().size(), 39u);
}

TEST(ChatParserVectors, MeetTheirExpectationInEveryChunking) {
  Rng rng(96);
  for (size_t line = 0; line < vectors().size(); ++line) {
    const Vector& vector = vectors()[line];
    SCOPED_TRACE(vector.id + " (line " + std::to_string(line + 1) + ")");
    const ParsedMessage message = replay(vector.options, whole(vector.output)).message;
    expect_message(message, vector.expected);
    EXPECT_EQ(replay(vector.options, per_byte(vector.output), false, false).message, message);
    for (int i = 0; i < 30; ++i) {
      const uint32_t longest = i == 0 ? 1 : 1 + rng.below(24);
      EXPECT_EQ(replay(vector.options, random_chunks(vector.output, rng, longest)).message, message);
    }
  }
}

// Cut anywhere, a vector still gives a whole message; this is what a token limit does.
TEST(ChatParserVectors, EveryPrefixGivesWholeCalls) {
  for (const Vector& vector : vectors()) {
    SCOPED_TRACE(vector.id);
    for (size_t n = 0; n <= vector.output.size(); n += 1) {
      if (complete_prefix(std::string_view(vector.output).substr(0, n)) != n) continue;
      const Replay run = replay(vector.options, whole(std::string_view(vector.output).substr(0, n)), true);
      for (const ParsedCall& call : run.message.calls) {
        EXPECT_TRUE(Json::accept(call.arguments)) << call.arguments;
        EXPECT_EQ(call.arguments.front(), '{');
      }
      for (const char* tag : {"<tool_call", "</tool_call", "<function="}) {
        if (vector.id.starts_with("h/tag-in-string")) continue;  // there the tag is data
        EXPECT_EQ(run.message.content.find(tag), std::string::npos) << n << " " << run.message.content;
      }
    }
  }
}

// The dialect that a vector was recorded in suffices, where its text is of that dialect.
TEST(ChatParserVectors, OneDialectAtATimeReadsItsOwn) {
  for (Vector vector : vectors()) {
    const bool hermes = vector.output.find("{\"name") != std::string::npos;
    if (vector.expected.calls.empty() || vector.id == "h/whitespace") continue;
    SCOPED_TRACE(vector.id);
    vector.options.dialect = hermes ? ToolDialect::hermes : ToolDialect::qwen3_xml;
    expect_message(replay(vector.options, whole(vector.output)).message, vector.expected);
    vector.options.dialect = hermes ? ToolDialect::qwen3_xml : ToolDialect::hermes;
    EXPECT_TRUE(replay(vector.options, whole(vector.output)).message.calls.empty());
  }
}

}  // namespace
}  // namespace nibble::text

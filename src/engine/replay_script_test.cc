#include "engine/replay_script.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/temporary_folder.h"

namespace nibble::engine {
namespace {

ReplayScript parsed(std::string_view text) {
  auto script = parse_replay(text, "talk.jsonl");
  EXPECT_TRUE(script.ok()) << script.status().text();
  return script.ok() ? *script : ReplayScript{};
}

std::string error_of(std::string_view text) {
  const auto script = parse_replay(text, "talk.jsonl");
  EXPECT_FALSE(script.ok()) << text;
  return script.status().text();
}

TEST(ReplayScript, ReadsEveryField) {
  const ReplayScript script = parsed(R"(
{"match": {"contains": "weather", "index": 2}, "times": 3, "chunks": [{"text": "It is "}, {"text": "", "delay_ms": 50}], "finish": "length"}

{"match": {"contains": ["a", "b"]}, "refuse": true}
{"chunks": [], "finish": "error"}
)");
  ASSERT_EQ(script.entries.size(), 3u);
  EXPECT_EQ(script.name, "talk.jsonl");
  EXPECT_EQ(script.fingerprint.size(), 8u);

  const ReplayEntry& first = script.entries[0];
  EXPECT_EQ(first.line, 2);
  EXPECT_EQ(first.contains, std::vector<std::string>{"weather"});
  EXPECT_EQ(first.index, 2);
  EXPECT_EQ(first.times, 3);
  EXPECT_FALSE(first.refuse);
  ASSERT_EQ(first.chunks.size(), 2u);
  EXPECT_EQ(first.chunks[0].text, "It is ");
  EXPECT_EQ(first.chunks[0].delay_ms, 0);
  EXPECT_EQ(first.chunks[1].text, "");
  EXPECT_EQ(first.chunks[1].delay_ms, 50);
  EXPECT_EQ(first.finish, Finish::length);

  EXPECT_EQ(script.entries[1].line, 4);
  EXPECT_EQ(script.entries[1].contains, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(script.entries[1].index, std::nullopt);
  EXPECT_TRUE(script.entries[1].refuse);

  EXPECT_TRUE(script.entries[2].contains.empty());
  EXPECT_EQ(script.entries[2].times, std::nullopt);
  EXPECT_EQ(script.entries[2].finish, Finish::error);
}

TEST(ReplayScript, EveryErrorNamesFileLineAndField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "talk.jsonl: expected at least one entry, got none"},
      {"\n  \n", "talk.jsonl: expected at least one entry, got none"},
      {"{\"chunks\": []}\nnonsense", "talk.jsonl:2: expected valid JSON, got"},
      {"[]", "talk.jsonl:1: expected an object, got array"},
      {R"({"chunks": [], "delay": 1})",
       "talk.jsonl:1: expected a key among match, times, refuse, chunks, finish, got \"delay\""},
      {R"({})", "talk.jsonl:1: expected the key \"chunks\", got none"},
      {R"({"chunks": "Hello"})", "talk.jsonl:1: chunks: expected a list, got \"Hello\""},
      {R"({"chunks": ["Hello"]})", "talk.jsonl:1: chunks[0]: expected an object, got string"},
      {R"({"chunks": [{"text": "a"}, {}]})", "talk.jsonl:1: chunks[1]: expected the key \"text\", got none"},
      {R"({"chunks": [{"text": 3}]})", "talk.jsonl:1: chunks[0]: text: expected a text, got 3"},
      {R"({"chunks": [{"text": "a", "wait": 3}]})",
       "talk.jsonl:1: chunks[0]: expected a key among text, delay_ms, got \"wait\""},
      {R"({"chunks": [{"text": "a", "delay_ms": -1}]})",
       "talk.jsonl:1: chunks[0]: delay_ms: expected a whole number from 0 to 600000, got -1"},
      {R"({"chunks": [{"text": "a", "delay_ms": 0.5}]})", "from 0 to 600000, got 0.5"},
      {R"({"chunks": [{"text": "a", "delay_ms": 600001}]})", "from 0 to 600000, got 600001"},
      {R"({"chunks": [{"text": "a", "delay_ms": 18446744073709551615}]})",
       "from 0 to 600000, got 18446744073709551615"},
      {R"({"chunks": [], "finish": "tool_calls"})",
       "talk.jsonl:1: finish: expected one of stop, length, error, got \"tool_calls\""},
      {R"({"chunks": [], "times": 0})", "talk.jsonl:1: times: expected a whole number from 1 to 1000000000, got 0"},
      {R"({"chunks": [], "times": null})", "talk.jsonl:1: times: expected a whole number from 1"},
      {R"({"chunks": [], "match": "Hello"})", "talk.jsonl:1: match: expected an object, got string"},
      {R"({"chunks": [], "match": {}})", "talk.jsonl:1: match: expected the key \"contains\", got none"},
      {R"({"chunks": [], "match": {"contains": []}})",
       "talk.jsonl:1: match: contains: expected a text or a list of texts, none of them empty, got []"},
      {R"({"chunks": [], "match": {"contains": ["a", ""]}})", "none of them empty, got [\"a\",\"\"]"},
      {R"({"chunks": [], "match": {"contains": {"a": 1}}})", "none of them empty, got {\"a\":1}"},
      {R"({"chunks": [], "match": {"index": "1"}})", "talk.jsonl:1: match: index: expected a whole number from 0"},
      {R"({"chunks": [], "match": {"regex": "a"}})", "talk.jsonl:1: match: expected the key \"contains\", got none"},
      {R"({"chunks": [], "match": {"contains": "b", "regex": "a"}})",
       "talk.jsonl:1: match: expected a key among index, contains, got \"regex\""},
      {R"({"refuse": 1})", "talk.jsonl:1: refuse: expected true or false, got 1"},
      {R"({"refuse": true, "chunks": []})", "talk.jsonl:1: refuse: expected neither chunks nor finish beside it"},
      {R"({"refuse": true, "finish": "stop"})", "talk.jsonl:1: refuse: expected neither chunks nor finish beside it"},
      {R"({"chunks": [], "chunks": []})", "talk.jsonl:1: expected valid JSON, got"},
  };
  for (const auto& [text, message] : cases) {
    const std::string error = error_of(text);
    EXPECT_EQ(error.find("corrupt: "), 0u) << error;
    EXPECT_NE(error.find(message), std::string::npos) << "expected " << message << "\n     got " << error;
  }
}

TEST(ReplayScript, IsBounded) {
  std::string many;
  for (int i = 0; i < 10'001; ++i) many += "{\"chunks\":[]}\n";
  EXPECT_NE(error_of(many).find("talk.jsonl:10001: expected at most 10000 entries"), std::string::npos);
  const std::string wide = R"({"chunks":[{"text":")" + std::string(5 << 20, 'a') + "\"}]}";
  EXPECT_NE(error_of(wide).find("talk.jsonl:1: expected at most 4194304 bytes"), std::string::npos);
  EXPECT_NE(error_of(R"({"chunks": )" + std::string(100, '[')).find("talk.jsonl:1: "), std::string::npos);
}

// Any bytes are a script or an error.
TEST(ReplayScript, SurvivesDamage) {
  const std::string good = R"({"match":{"contains":["a"],"index":1},"times":2,"chunks":[{"text":"b","delay_ms":3}]})";
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    for (int n = 0; n <= i % 3; ++n) bad[random() % bad.size()] = static_cast<char>(random());
    const auto script = parse_replay(bad, "x");
    EXPECT_TRUE(script.ok() || script.status().code() == Code::corrupt);
  }
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(parse_replay(good.substr(0, n), "x").ok());
}

TEST(ReplayScript, ComesFromAFile) {
  const test::TemporaryFolder folder;
  const auto script = read_replay(folder.write("talk.jsonl", "{\"chunks\":[{\"text\":\"Hi\"}]}\n"));
  ASSERT_TRUE(script.ok()) << script.status().text();
  EXPECT_EQ(script->entries[0].chunks[0].text, "Hi");
  EXPECT_EQ(script->name, (folder / "talk.jsonl").string());
  EXPECT_FALSE(read_replay(folder / "none.jsonl").ok());
}

}  // namespace
}  // namespace nibble::engine

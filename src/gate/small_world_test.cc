#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"
#include "gate/recipe.h"

namespace nibble::gate {
namespace {

const char* const kTalk = R"({"id":1,"category":"c","turns":[{"user":"u","expect":{"must":["m"]},"tool_results":[]}]})";
const char* const kCall =
    R"({"id":"two","category":"c","system":"s","tools":[{"type":"function"}],"turns":[{"user":"u","expect":)"
    R"({"must":["m"],"tool":"t","args":["a \"b\"",11,true]},"tool_results":["{}"]}],"more":1})";

TEST(SmallWorld, ReadsEveryField) {
  const auto cases = parse_cases(std::string(kTalk) + "\r\n\n" + kCall, "f");
  ASSERT_TRUE(cases.ok()) << cases.status().text();
  ASSERT_EQ(cases->size(), 2u);
  const Case &talk = (*cases)[0], &call = (*cases)[1];
  EXPECT_EQ(talk.id, "1");
  EXPECT_EQ(talk.system, "");
  EXPECT_TRUE(talk.tools.empty());
  ASSERT_EQ(talk.turns[0].expect.must.size(), 1u);
  EXPECT_EQ(talk.turns[0].expect.must[0].text, "m");
  EXPECT_EQ(talk.turns[0].expect.steps->count, 0u);
  EXPECT_EQ(talk.gates, std::vector<std::string>{"c"});
  EXPECT_EQ(call.id, "two");
  EXPECT_EQ(call.tools.size(), 1u);
  const CallSteps& steps = *call.turns[0].expect.steps;
  EXPECT_EQ(steps.tool, "t");
  EXPECT_EQ(steps.words, (std::vector<std::string>{R"(a \"b\")", "11", "true"}));
  EXPECT_EQ(steps.count, 1u);
  ASSERT_EQ(call.turns[0].mocks.size(), 1u);
  EXPECT_EQ(call.turns[0].mocks[0].result, "{}");
}

TEST(SmallWorld, ReadsTheSmallWorld) {
  const auto cases = read_cases(NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl");
  ASSERT_TRUE(cases.ok()) << cases.status().text();
  EXPECT_EQ(cases->size(), 400u);
  std::map<std::string, int> categories;
  size_t turns = 0, calls = 0;
  for (const Case& one : *cases) {
    ++categories[one.category];
    turns += one.turns.size();
    for (const Turn& turn : one.turns) calls += turn.mocks.size();
  }
  EXPECT_EQ(turns, 531u);
  EXPECT_EQ(calls, 214u);
  EXPECT_EQ(categories["topic_switch"], 131);
  EXPECT_EQ(categories["direct_action"], 33);
}

TEST(SmallWorld, ASampleHasEveryCategoryByItsShare) {
  std::vector<Case> cases;
  for (int i = 0; i < 10; ++i) {
    Case one;
    one.id = std::to_string(i);
    one.category = i == 0 ? "rare" : i % 3 == 0 ? "some" : "most";  // 1, 3 and 6 of them
    cases.push_back(one);
  }
  const auto ids = [&](size_t count) {
    std::string text;
    for (const Case& one : stratified(cases, count)) text += one.id;
    return text;
  };
  EXPECT_EQ(ids(10), "0123456789");
  EXPECT_EQ(ids(11), "0123456789");
  EXPECT_EQ(ids(5), "01234");  // .5, 1.5 and 3: the half goes to the category that comes first
  EXPECT_EQ(ids(1), "1");      // .1, .3 and .6
  EXPECT_EQ(ids(0), "");
}

struct Broken {
  const char* text;
  const char* message;
};

TEST(SmallWorld, RefusesWhatItDoesNotUnderstand) {
  for (
      const Broken& broken : {
          Broken{"", "f: expected a case a line, got none"},
          {"[]", "f: line 1: id: expected a text or a whole number, got null"},
          {R"({"category":"c","turns":[]})", "f: line 1: id: expected a text or a whole number, got null"},
          {R"({"id":1.5,"category":"c"})", "f: line 1: id: expected a text or a whole number, got number"},
          {R"({"id":1,"category":"c","turns":[]})", "f: line 1: turns: expected a list with a turn, got array"},
          {R"({"id":1,"category":"c","tools":{},"turns":[1]})", "f: line 1: tools: expected a list, got object"},
          {R"({"id":1,"category":"c","turns":[1]})", "f: line 1: turn 1: user: expected a text, got null"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":[],"expect":{}}]})",
           "f: line 1: turn 1: expect: expected the key \"must\", got none"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":[],"expect":{"must":[]}}]})",
           "f: line 1: turn 1: expect: must: expected a string or a tool to look for, got nothing"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":[1],"expect":{"must":[],"tool":"t","args":[]}}]})",
           "f: line 1: turn 1: tool_results: expected texts, got number"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":["x"],"expect":{"must":[]}}]})",
           "f: line 1: turn 1: expect: expected the key \"tool\", got none"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":[],"expect":{"must":["m"],"tool":"t"}}]})",
           "f: line 1: turn 1: expect: expected no tool in a turn without tool_results, got one"},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":[],"expect":{"must":["m"],"must_not":["m"]}}]})",
           "f: line 1: turn 1: expect: expected a key among must, tool, args, got \"must_not\""},
          {R"({"id":1,"category":"c","turns":[{"user":"u","tool_results":["x"],"expect":)"
           R"({"must":[],"tool":"t","args":[null]}}]})",
           "f: line 1: turn 1: expect: args: expected strings, numbers or booleans, got null"},
      }) {
    const auto cases = parse_cases(broken.text, "f");
    ASSERT_FALSE(cases.ok()) << broken.text;
    EXPECT_EQ(cases.status().code(), Code::corrupt);
    EXPECT_EQ(cases.status().message(), broken.message);
  }
  const auto twice = parse_cases(std::string(kTalk) + "\n" + kTalk, "f");
  EXPECT_EQ(twice.status().message(), "f: line 2: expected an id of its own, got \"1\" again");
  EXPECT_EQ(read_cases("no-such-file").status().code(), Code::not_found);
}

// Changed bytes give cases or `corrupt`, never a crash.
TEST(SmallWorld, SurvivesMutations) {
  Rng rng(11);
  for (int round = 0; round < 3000; ++round) {
    std::string text = std::string(kTalk) + "\n" + kCall;
    for (uint32_t i = 0, n = 1 + rng.below(4); i < n; ++i) {
      const size_t at = rng.below(static_cast<uint32_t>(text.size()));
      if (rng.below(2) == 0) {
        text.erase(at, 1 + rng.below(8));
      } else {
        text[at] = static_cast<char>(rng.below(256));
      }
    }
    const auto cases = parse_cases(text, "f");
    EXPECT_TRUE(cases.ok() || cases.status().code() == Code::corrupt) << cases.status().text();
  }
}

}  // namespace
}  // namespace nibble::gate

#include <gtest/gtest.h>

#include <map>

#include "synth/cell.h"
#include "synth/conversation.h"
#include "synth/draw.h"
#include "synth/test_recipe.h"

namespace nibble::synth {
namespace {

// Plays a companion that knows its small recipe. `wrong` changes an answer.
class Companion {
 public:
  std::function<void(Answer&, int64_t step)> wrong;
  std::vector<Question> asked;

  Ask ask() {
    return [this](int64_t, int64_t step, const Question& question) -> Result<Answer> {
      asked.push_back(question);
      Answer answer;
      const Json& last = question.messages.back();
      const auto text = last["content"].get<std::string>();
      if (last["role"] == "tool") {
        answer.reply.content = Json::parse(text)["results"][0].get<std::string>() + ".";
      } else if (text.rfind("What did ", 0) == 0) {
        answer.reply.calls = {{"x", "search_memory", Json{{"query", text}}.dump()}};
      } else {
        const auto system = question.messages[0]["content"].get<std::string>();
        answer.reply.content = "Hello " + system.substr(system.rfind(' ') + 1);
      }
      if (wrong) wrong(answer, step);
      return answer;
    };
  }
};

class Roll : public ::testing::Test {
 protected:
  void use(Recipe recipe) {
    recipe_ = std::move(recipe);
    validator_.emplace(Validator::make(recipe_, {}, nullptr).value());
    context_ = {&recipe_, &*validator_, 1};
  }
  Candidate roll(Companion& companion, int64_t cell = 0) {
    const auto result = roll_cell(context_, {&recipe_.categories[0], cell, 1}, companion.ask());
    EXPECT_TRUE(result.ok()) << result.status().text();
    EXPECT_EQ(result->candidates.size(), 1U);
    return result->candidates[0];
  }
  Recipe recipe_;
  std::optional<Validator> validator_;
  CellContext context_{};
};

TEST_F(Roll, TheTeacherPlaysTheAssistantAlone) {
  use(test::roll_recipe());
  int found = 0;
  for (int64_t cell = 0; cell < 30; ++cell) {
    Companion companion;
    const Candidate one = roll(companion, cell);
    EXPECT_TRUE(one.faults.empty()) << to_text(one.faults);
    EXPECT_EQ(one.attempts, 1);
    for (const Json& message : one.record["messages"]) {
      if (message["role"] != "tool") continue;
      ++found;
      EXPECT_TRUE(Json::parse(message["content"].get<std::string>())["results"][0].is_string());
    }
    for (const Json& pair : one.draws.value("pairs", Json::array()))
      EXPECT_FALSE(held_out_pair(pair[0].get<std::string>(), pair[1].get<std::string>()));
    for (const Question& question : companion.asked) {
      EXPECT_EQ(question.tools, recipe_.tools);
      EXPECT_EQ(question.max_tokens, 100);
      for (const Json& message : question.messages) {
        if (message["role"] != "tool") continue;
        EXPECT_EQ(message["tool_call_id"].get<std::string>().rfind("call_", 0), 0U);
      }
    }
  }
  EXPECT_GT(found, 20);
}

TEST_F(Roll, AWrongReplyIsAskedForOnceMore) {
  use(test::roll_recipe());
  Companion companion;
  companion.wrong = [](Answer& answer, int64_t step) {
    if (step == 0) answer.reply = {.content = "**No.**", .reasoning = {}, .calls = {}};
  };
  const Candidate one = roll(companion);
  EXPECT_TRUE(one.faults.empty()) << to_text(one.faults);
  EXPECT_EQ(one.attempts, 2);
  EXPECT_EQ(companion.asked[0].messages, companion.asked[1].messages);
  EXPECT_NE(companion.asked[0].params, companion.asked[1].params);  // hotter
  EXPECT_NE(companion.asked[0].seed, companion.asked[1].seed);
}

TEST_F(Roll, ARecipeMayTellWhatIsWrong) {
  use(test::roll_recipe({{"repair", "That broke a rule: {wrong} Say it rightly."}}));
  Companion companion;
  companion.wrong = [](Answer& answer, int64_t step) {
    if (step == 0) answer.reply = {.content = "**No.**", .reasoning = {}, .calls = {}};
  };
  roll(companion);
  const auto said = companion.asked[1].messages.back()["content"].get<std::string>();
  EXPECT_NE(said.find("md: "), std::string::npos) << said;
}

TEST_F(Roll, WhatStaysWrongIsRejected) {
  use(test::roll_recipe());
  const auto reason = [&](const std::function<void(Answer&, int64_t)>& wrong) {
    Companion companion;
    companion.wrong = wrong;
    const Candidate one = roll(companion);
    return one.faults.empty() ? "" : one.faults[0].reason;
  };
  EXPECT_EQ(reason([](Answer& a, int64_t) { a.reply.reasoning = "Hm."; }), "thinking");
  EXPECT_EQ(reason([](Answer& a, int64_t) { a.finish = "length"; }), "cut");
  EXPECT_EQ(reason([](Answer& a, int64_t) { a.reply = {.content = "Nothing.", .reasoning = {}, .calls = {}}; }).empty(),
            false);
  EXPECT_EQ(reason([](Answer& a, int64_t) {
              a.reply.calls = {{"x", "set_timer", R"({"minutes": 3})"}};
            }),
            "wrong_tool");
}

TEST_F(Roll, ToolsMayFail) {
  Json exchange = {{"id", "broken"},
                   {"user", {"Look it up."}},
                   {"steps",
                    {{{"call", "search_memory"}, {"error", "the memory is being repaired"}},
                     {{"must_any", {"repaired", "sorry"}}}}}};
  use(test::roll_recipe(
      {{"exchanges", {exchange}}, {"categories", {{{"id", "ask"}, {"quota", 1}, {"exchanges", {"broken"}}}}}}));
  const Ask ask = [](int64_t, int64_t, const Question& question) -> Result<Answer> {
    Answer answer;
    if (question.messages.back()["role"] == "tool") {
      answer.reply.content = "Sorry, my memory is out of order.";
    } else {
      answer.reply.calls = {{"x", "search_memory", R"({"query": "it"})"}};
    }
    return answer;
  };
  const auto result = roll_cell(context_, {&recipe_.categories[0], 0, 1}, ask);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->candidates[0].faults.empty()) << to_text(result->candidates[0].faults);
  EXPECT_TRUE(is_failed_result(result->candidates[0].record["messages"][3]["content"].get<std::string>()));
}

TEST(Conversation, TakesTheFormsThatTeachersWrite) {
  const auto read = read_messages(Json::parse(R"([
    {"role": "system", "content": "left out"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "a", "arguments": "{\"x\": 1}"}},
                                                          {"name": "b", "arguments": {"y": 2}}, {"name": "c", "arguments": "no"}]},
    {"role": "tool", "content": {"ok": true}, "name": "a"}])"));
  ASSERT_TRUE(read.ok()) << read.status().text();
  ASSERT_EQ(read->size(), 3U);
  EXPECT_EQ((*read)[1]["content"], "");
  EXPECT_EQ((*read)[1]["tool_calls"][0],
            Json::parse(R"({"type": "function", "function": {"name": "a", "arguments": {"x": 1}}})"));
  EXPECT_EQ((*read)[1]["tool_calls"][2]["function"]["arguments"], "no");
  EXPECT_EQ((*read)[2], Json::parse(R"({"role": "tool", "content": "{\"ok\":true}"})"));
  for (const char* bad : {R"({})", R"([3])", R"([{"content": "x"}])", R"([{"role": "user", "content": 3}])",
                          R"([{"role": "assistant", "tool_calls": [{"arguments": {}}]}])",
                          R"([{"role": "assistant", "tool_calls": 3}])"}) {
    EXPECT_FALSE(read_messages(Json::parse(bad)).ok()) << bad;
  }
}

TEST(Conversation, KnowsEmptyAndFailedResults) {
  for (const char* empty : {"", "[]", "null", R"({"results": []})", R"({"query": "x", "results": [], "more": []})"})
    EXPECT_TRUE(is_empty_result(empty)) << empty;
  for (const char* full : {R"({"results": [1]})", R"({"ok": true})", "rain", R"({"a": [], "b": [1]})"})
    EXPECT_FALSE(is_empty_result(full)) << full;
  EXPECT_TRUE(is_failed_result(R"({"error": "down"})"));
  EXPECT_FALSE(is_failed_result(R"({"error": null})"));
  EXPECT_FALSE(is_failed_result("error"));
}

}  // namespace
}  // namespace nibble::synth

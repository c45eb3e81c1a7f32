#include "gate/model_judge.h"

#include <gtest/gtest.h>

#include "tests/support/chat_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

// Replies "right" to even users and "wrong" to odd ones, in two slightly different voices.
Recipe numbered_cases(int count) {
  Recipe recipe;
  recipe.name = "numbers";
  recipe.gates = {{.id = "g", .threshold = 0}};
  for (int i = 0; i < count; ++i) {
    Case& one = recipe.cases.emplace_back();
    one.id = fmt::format("n.{}", i);
    one.why = "numbers are told apart";
    one.gates = {"g"};
    Turn& turn = one.turns.emplace_back();
    turn.user = fmt::format("number {}", i);
    turn.expect.must.push_back(TextPattern::parse("right", "must").value());
  }
  return recipe;
}

Records played(const Recipe& recipe, const std::string& voice) {
  const test::ChatServer server([&](const Json& messages) {
    const std::string user = messages.back()["content"];
    return Reply{.content = (std::stoi(user.substr(7)) % 2 == 0 ? "right" : "wrong") + voice};
  });
  Side side;
  side.endpoint.url = server.url();
  side.endpoint.model = "scripted";
  return play_recipe(recipe, side, {}).value();
}

JudgeOptions asking(const test::ChatServer& server, Path log = {}) {
  JudgeOptions options;
  options.endpoint.url = server.url();
  options.endpoint.model = "judge";
  options.endpoint.first_backoff_s = 0.001;
  options.log = std::move(log);
  options.jobs = 3;
  return options;
}

TEST(ModelJudge, AgreesOrNotWithTheRules) {
  const Recipe recipe = numbered_cases(10);
  const Records records = played(recipe, "");
  // Says no to number 4 as well, and is unsure of number 6.
  const test::ChatServer judge([](const Json& messages) {
    const std::string question = messages.back()["content"];
    EXPECT_NE(question.find("numbers are told apart"), std::string::npos);
    const bool right = question.find("right") != std::string::npos && question.find("number 4") == std::string::npos;
    const char* verdict = question.find("number 6") != std::string::npos ? "unsure" : right ? "yes" : "no";
    return Reply{.content = dump({{"verdict", verdict}, {"reason", "so it seems"}})};
  });
  const test::TemporaryFolder folder;
  for (int run = 0; run < 2; ++run) {  // the second time from its log
    const auto plays = judge_plays(recipe, records, asking(judge, folder / "judge.jsonl"));
    ASSERT_TRUE(plays.ok()) << plays.status().text();
    const Json json = to_json(*plays, "judge");
    EXPECT_EQ(json["n"], 10);
    EXPECT_EQ(json["yes"], 3);
    EXPECT_EQ(json["no"], 6);
    EXPECT_EQ(json["unsure"], 1);
    EXPECT_EQ(json["agree"], 8);
    ASSERT_EQ(json["disagree"].size(), 1u);
    EXPECT_EQ(json["disagree"][0]["id"], "n.4");
    EXPECT_EQ(judge_text(json), "judge judge: yes 3, no 6, unsure 1; of the same mind as the rules in 8 of 9\n");
    EXPECT_EQ(judge.requests(), 10);
  }
}

// A judge that looks at the replies prefers the voice; one that always takes the first has no preference.
TEST(ModelJudge, PairsAreShownInBothOrders) {
  const Recipe recipe = numbered_cases(4);
  const Records a = played(recipe, " plain"), b = played(recipe, " shouted");
  for (const bool looks : {true, false}) {
    const test::ChatServer judge([&](const Json& messages) {
      const std::string question = messages.back()["content"];
      const bool a_first = question.find("plain") < question.find("shouted");
      return Reply{.content = dump({{"verdict", !looks || a_first ? "first" : "second"}, {"reason", ""}})};
    });
    const auto pairs = judge_pairs(recipe, a, b, asking(judge));
    ASSERT_TRUE(pairs.ok()) << pairs.status().text();
    const Json json = to_json(*pairs, "judge");
    EXPECT_EQ(json["n"], 4);
    EXPECT_EQ(json["a"], looks ? 4 : 0);
    EXPECT_EQ(json["tie"], looks ? 0 : 4);
    EXPECT_EQ(judge.requests(), 8);
  }
  const test::ChatServer unasked([](const Json&) { return Reply{}; });
  EXPECT_TRUE(judge_pairs(recipe, a, a, asking(unasked)).value().empty());  // the same words: nothing to prefer
}

TEST(ModelJudge, WhatCannotBeUnderstoodIsAnError) {
  const Recipe recipe = numbered_cases(2);
  const Records records = played(recipe, "");
  for (const char* said : {"yes", "", "[]", R"({"verdict": "maybe", "reason": ""})", R"({"verdict": "yes"})",
                           R"({"verdict": 1, "reason": 2})"}) {
    const test::ChatServer judge([&](const Json&) { return Reply{.content = said}; });
    EXPECT_EQ(judge_plays(recipe, records, asking(judge)).status().code(), Code::unavailable) << said;
  }
}

}  // namespace
}  // namespace nibble::gate

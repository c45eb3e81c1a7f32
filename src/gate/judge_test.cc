#include "gate/judge.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

Reply say(std::string content) {
  return {.content = std::move(content)};
}
Reply call(std::string name, std::string arguments) {
  return {.calls = {{"id", std::move(name), std::move(arguments)}}};
}

// A turn that needs two calls, then "Not remember".
Turn two_calls() {
  return {.user = "u",
          .expect = {.must = {"NOT remember", "é"}, .tool = "search", .args = {"Leela", "11"}},
          .tool_results = {"r1", "r2"}};
}

const Reply kRight = call("search", R"({"query": "what Leela said", "n": 11})");

struct Script {
  const char* what;
  std::vector<Reply> replies;
  std::string verdict;  // "feed", "pass", or the reason of a failure
};

std::string show(const Verdict& verdict) {
  if (verdict.kind == Verdict::Kind::feed_result) return "feed";
  return verdict.kind == Verdict::Kind::pass ? "pass" : verdict.reason;
}

TEST(JudgeTurn, FollowsTheRule) {
  const std::vector<Script> scripts = {
      {"first call", {kRight}, "feed"},
      {"second call", {kRight, kRight}, "feed"},
      {"calls, then the text", {kRight, kRight, say("I do not remember. \xC3\x89.")}, "pass"},
      {"the second must is missing",
       {kRight, kRight, say("I do not remember.")},
       "expected \"é\" in the reply, got none"},
      {"text too early", {kRight, say("I do not remember é.")}, "expected 2 calls of search before the text, got 1"},
      {"one call too many", {kRight, kRight, kRight}, "expected 2 calls, got one more: search"},
      {"wrong tool", {call("web", R"({"q":"Leela 11"})")}, "expected a call of search, got web"},
      {"wrong argument",
       {call("search", R"({"q":"leela 11"})")},
       "expected \"Leela\" in the arguments, got {\"q\":\"leela 11\"}"},
      {"arguments that are not JSON count as text", {call("search", "Leela 11")}, "feed"},
      {"escapes do not hide an argument", {call("search", R"({"q":"Le\u0065la 11"})")}, "feed"},
      {"only the first call counts", {{.calls = {kRight.calls[0], {"id", "other", "{}"}}}}, "feed"},
      {"text beside a call does not end the turn", {{.content = "Hm.", .calls = kRight.calls}}, "feed"},
  };
  for (const Script& script : scripts) {
    EXPECT_EQ(show(judge_turn(two_calls(), script.replies)), script.verdict) << script.what;
  }
}

TEST(JudgeTurn, ATurnWithoutToolsWantsText) {
  const Turn turn{.user = "u", .expect = {.must = {"thirteen"}}};
  EXPECT_EQ(show(judge_turn(turn, std::vector{say("It is Thirteen.")})), "pass");
  EXPECT_EQ(show(judge_turn(turn, std::vector{say("")})), "expected \"thirteen\" in the reply, got none");
  EXPECT_EQ(show(judge_turn(turn, std::vector{call("t", "{}")})), "expected 0 calls, got one more: t");
}

std::string manners(const Reply& reply) {
  const auto m = manners_of(reply);
  if (!m.ok()) return m.status().text();
  return std::string(m->thinks ? "thinks " : "") + (m->markdown ? "markdown " : "") + (m->asks ? "asks " : "");
}

TEST(Manners, EachColumnHasItsOwnCause) {
  EXPECT_EQ(manners(say("It may rain today.")), "");
  EXPECT_EQ(manners({.content = "It may rain.", .reasoning = "He wants rain."}), "thinks ");
  EXPECT_EQ(manners({.content = "It may rain.", .reasoning = "\n\n"}), "");
  EXPECT_EQ(manners(say("Okay, so the user is asking about rain.")), "thinks ");
  EXPECT_EQ(manners(say("**Bold** move.")), "markdown ");
  EXPECT_EQ(manners(say("Shall I search the web for that?")), "asks ");
  EXPECT_EQ(manners(say("**Shall I** save it?")), "markdown asks ");
  EXPECT_EQ(manners(kRight), "");
}

}  // namespace
}  // namespace nibble::gate

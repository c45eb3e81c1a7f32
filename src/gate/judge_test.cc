#include "gate/judge.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

const Json kTools = parse_json(R"([{"type":"function","function":{"name":"set_timer","parameters":{"type":"object",
    "properties":{"minutes":{"type":"integer"},"label":{"type":"string"}},"required":["minutes"]}}},
    {"type":"function","function":{"name":"search","parameters":{"type":"object",
    "properties":{"query":{"type":"string"}},"required":["query"]}}}])",
                               "tools")
                        .value();

// The turn of a case whose only turn expects so.
Turn turn_of(const std::string& expect) {
  const std::string text = R"({"id":"a","why":"w","turns":[{"user":"u"},{"user":"u","expect":)" + expect + "}]}";
  Json json = parse_json(text, "case").value();
  json["tools"] = kTools;
  auto one = parse_case(json, "case");
  EXPECT_TRUE(one.ok()) << one.status().text();
  return one->turns[1];
}

PlayedMessage say(std::string content, std::vector<ToolCall> calls = {}) {
  PlayedMessage message;
  message.said.reply = {.content = std::move(content), .calls = std::move(calls)};
  message.said.finish = message.said.reply.calls.empty() ? "stop" : "tool_calls";
  message.said.times.first_answer_ms = 300;
  return message;
}
PlayedMessage call(std::string name, std::string arguments) {
  return say("", {{"id", std::move(name), std::move(arguments)}});
}

// The first operator that the messages break, or "".
std::string verdict(const Turn& turn, std::vector<PlayedMessage> messages, const std::string& context = {}) {
  const auto failures = judge_turn(turn, {.user = "u", .messages = std::move(messages)}, {context});
  if (!failures.ok()) return failures.status().text();
  return failures->empty() ? "" : failures->front().what;
}
std::string verdict(const std::string& expect, std::vector<PlayedMessage> messages, const std::string& context = {}) {
  return verdict(turn_of(expect), std::move(messages), context);
}

TEST(Judge, EveryOperatorHoldsAndFails) {
  struct Row {
    const char* expect;
    const char* good;
    const char* bad;
    const char* what;
  };
  const Row rows[] = {
      {R"({"must":["Delhi",{"~":"cap\\w+"}]})", "DELHI is the capital.", "Delhi.", "must"},
      {R"({"must":["it's"]})", "It\u2019s so.", "It is.", "must"},
      {R"({"must_any":["Delhi","Mumbai"]})", "In Mumbai.", "In Pune.", "must_any"},
      {R"({"must_not":["sorry"]})", "Yes.", "Sorry, no.", "must_not"},
      {R"({"equals":"Yes."})", "Yes.", "Yes. ", "equals"},
      {R"({"last_number":"1,250.50"})", "It is $1250.5.", "It is 1250.", "last_number"},
      {R"({"instructions":[{"id":"punctuation:no_comma"}]})", "Tea.", "Tea, milk.", "instruction"},
      {R"({"instructions":[{"id":"startend:quotation"}]})", "\"Tea.\"", "*\"Tea.\"*", "instruction_loose"},
      {R"({"equals_number":391})", "17 times 23 is 391.", "It is 390.", "equals_number"},
      {R"({"detectors":["md"]})", "Milk and eggs.", "- milk", "detectors"},
      {R"({"max_sentences":2})", "One. Two.", "One. Two. Three.", "max_sentences"},
      {R"({"max_words":3})", "One two three.", "One two three four.", "max_words"},
      {R"({"refuse":true})", "I do not remember that.", "It was Friday.", "refuse"},
      {R"({"name":"Rajesh"})", "You are Rajesh.", "You are Ravi.", "name"},
      {R"({"json_schema":{"type":"object","required":["a"]}})", R"({"a":1})", R"({"b":1})", "json_schema"},
      {R"({"json_schema":{"type":"object"}})", "{}", "not JSON", "json_schema"},
      {R"({"recall":{"turn":1,"must_any":["blue"]}})", "It was blue.", "It was red.", "recall"},
      {R"({"no_call":true})", "Hello.", nullptr, ""},
      {R"({"finish":"stop"})", "Hello.", nullptr, ""},
      {R"({"within_ms":300})", "Hello.", nullptr, ""},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(verdict(row.expect, {say(row.good)}), "") << row.expect;
    if (row.bad == nullptr) continue;
    EXPECT_EQ(verdict(row.expect, {say(row.bad)}), row.what) << row.expect;
  }
  EXPECT_EQ(verdict(R"({"no_call":true})", {call("search", R"({"query":"x"})"), say("Hello.")}), "call.trigger");
  EXPECT_EQ(verdict(R"({"finish":"length"})", {say("Hello.")}), "finish");
  EXPECT_EQ(verdict(R"({"within_ms":299})", {say("Hello.")}), "within_ms");
  EXPECT_EQ(verdict(R"({"novel":0})", {say("Arun said it was moved to Friday.")}, "What did Arun say?"), "novel");
  EXPECT_EQ(verdict(R"({"novel":0})", {say("Arun said it was moved to Friday.")}, "Arun: moved to Friday"), "");
}

TEST(Judge, CallsAreThoseOfTheWholeTurn) {
  const std::string timer = R"({"call":{"set_timer":{"minutes":[5],"label":["","tea"]}}})";
  EXPECT_EQ(verdict(timer, {call("set_timer", R"({"minutes":5})"), say("Done.")}), "");
  EXPECT_EQ(verdict(timer, {call("set_timer", R"({"minutes":15})"), say("Done.")}), "call.value");
  EXPECT_EQ(verdict(timer, {say("Shall I set it?")}), "call.trigger");
  EXPECT_EQ(verdict(R"({"call_any":[{"search":{"query":[{"~":"x"}]}},{"set_timer":{"minutes":[5]}}]})",
                    {call("set_timer", R"({"minutes":5})"), say("Done.")}),
            "");
  const std::string order = R"({"calls_in_order":["search","set_timer"]})";
  EXPECT_EQ(verdict(order, {call("search", "{}"), call("set_timer", "{}"), say("Done.")}), "");
  EXPECT_EQ(verdict(order, {call("set_timer", "{}"), call("search", "{}"), say("Done.")}), "calls_in_order");
}

// Detectors that are no patterns were asked when the turn was played.
TEST(Judge, FindingsOfTheTurnAreDetectors) {
  const Turn turn = turn_of(R"({"detectors":["tool_loop","repetition"]})");
  for (const bool of_turn : {false, true}) {
    PlayedTurn played;
    played.messages.push_back({.said = {.reply = {.content = "Done."}}});
    EXPECT_TRUE(judge_turn(turn, played, {}).value().empty());
    (of_turn ? played.anomalies : played.messages[0].anomalies)
        .push_back({of_turn ? "tool_loop" : "repetition.cycle", "x"});
    const auto failures = judge_turn(turn, played, {});
    ASSERT_EQ(failures->size(), 1u);
    EXPECT_EQ(failures->front().what, "detectors");
  }
}

TEST(Judge, DirectMeansInTheFirstMessageAndUnasked) {
  const std::string direct = R"({"direct":true})";
  EXPECT_EQ(verdict(direct, {call("search", "{}"), say("Done.")}), "");
  EXPECT_EQ(verdict(direct, {say("Shall I?")}), "direct");
  EXPECT_EQ(verdict(direct, {say("Shall I search? ", {{"1", "search", "{}"}}), say("Done.")}), "direct");
}

// The rule of the small world: steps.
TEST(Judge, StepsAreCountedByMessages) {
  Turn turn;
  turn.user = "u";
  turn.expect.steps = CallSteps{.tool = "search", .words = {"Leela", "11"}, .count = 2};
  const PlayedMessage right = call("search", R"({"query": "what Leela said", "n": 11})");
  const PlayedMessage end = say("I do not remember.");
  EXPECT_EQ(verdict(turn, {right, right, end}), "");
  EXPECT_EQ(verdict(turn, {right, end}), "call.count");
  EXPECT_EQ(verdict(turn, {right, right, right, end}), "call.count");
  EXPECT_EQ(verdict(turn, {end}), "call.trigger");
  EXPECT_EQ(verdict(turn, {call("web", R"({"q":"Leela 11"})"), right, end}), "call.name");
  EXPECT_EQ(verdict(turn, {call("search", R"({"q":"leela 11"})"), right, end}), "call.value");
  EXPECT_EQ(verdict(turn, {call("search", R"({"q":"Le\u0065la 11"})"), right, end}), "");  // escapes hide nothing
  EXPECT_EQ(verdict(turn, {say("", {right.said.reply.calls[0], {"id", "other", "{}"}}), right, end}), "");
}

TEST(Judge, WhatBrokeOffIsNotJudgedFurther) {
  const auto failures = judge_turn(turn_of(R"({"must":["x"]})"), {.user = "u", .failures = {{"aborted", "d"}}}, {});
  ASSERT_TRUE(failures.ok());
  ASSERT_EQ(failures->size(), 1u);
  EXPECT_EQ(failures->front().what, "aborted");
}

TEST(LastNumber, ReadsDigitsAndWords) {
  const std::pair<const char*, std::optional<double>> rows[] = {
      {"The sum is 12.", 12},
      {"It costs $1,250.50.", 1250.5},
      {"From 3 to -4", -4},
      {"A 5-7 range", 7},
      {"twenty-five apples", 25},
      {"Twenty five", 25},
      {"seventeen", 17},
      {"first 3, then seven", 7},
      {"twenty, five", 5},
      {"₹1,00,000", 100000},
      {"1.", 1},
      {"none at all", std::nullopt},
      {"", std::nullopt},
  };
  for (const auto& [text, number] : rows) EXPECT_EQ(last_number(text), number) << text;
}

}  // namespace
}  // namespace nibble::gate

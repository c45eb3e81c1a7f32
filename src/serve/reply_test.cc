#include "serve/reply.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "serve/reply_json.h"

namespace nibble::serve {
namespace {

Json tools() {
  return Json::parse(R"([{"type":"function","function":{"name":"get_time","parameters":{"type":"object"}}},
                         {"type":"function","function":{"name":"add","parameters":{"type":"object"}}}])");
}

std::string call(const std::string& name, const std::string& arguments) {
  return "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments + "}\n</tool_call>";
}

struct Outcome {
  ReplyMessage message;
  std::vector<Delta> deltas;
  std::string reason;
  std::vector<int> healed;
  bool complete = false;
};

Outcome run(const ReplyOptions& options, const std::vector<std::string>& pieces, bool cut = false) {
  Outcome out;
  Reply reply(options);
  for (const std::string& piece : pieces) reply.feed(piece, out.deltas);
  reply.finish(cut, out.deltas);
  for (const Delta& delta : out.deltas) out.message.add(delta);
  out.reason = reply.finish_reason();
  out.healed = reply.healed_calls();
  out.complete = reply.complete();
  return out;
}

ReplyOptions with_tools() {
  ReplyOptions options;
  options.parser.tools = tools();
  return options;
}

TEST(Reply, SaysContent) {
  const Outcome out = run({}, {"Hel", "lo."});
  EXPECT_EQ(out.message.content, "Hello.");
  EXPECT_EQ(out.reason, "stop");
  EXPECT_EQ(run({}, {"Hello"}, true).reason, "length");
}

TEST(Reply, NumbersCallsAndGivesThemIds) {
  const Outcome out =
      run(with_tools(), {"Wait.\n", call("get_time", "{}"), "\n", call("add", R"({"a": 1, "b": [2]})")});
  EXPECT_EQ(out.message.content, "Wait.");
  ASSERT_EQ(out.message.calls.size(), 2u);
  EXPECT_EQ(out.message.calls[1].name, "add");
  EXPECT_EQ(Json::parse(out.message.calls[1].arguments), Json::parse(R"({"a":1,"b":[2]})"));
  EXPECT_EQ(out.message.calls[0].id.size(), 29u);
  EXPECT_NE(out.message.calls[0].id, out.message.calls[1].id);
  EXPECT_EQ(out.reason, "tool_calls");
  EXPECT_TRUE(out.healed.empty());
  int begun = 0;
  for (const Delta& delta : out.deltas) {
    EXPECT_EQ(delta.id.empty(), delta.kind != Delta::Kind::call_begin);
    if (delta.kind == Delta::Kind::call_begin) {
      EXPECT_EQ(delta.index, begun++);
    }
    if (delta.kind == Delta::Kind::call_args) {
      EXPECT_EQ(delta.index, begun - 1);
    }
  }
}

TEST(Reply, LengthWinsOverCalls) {
  const Outcome out =
      run(with_tools(), {call("get_time", "{}"), "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1"}, true);
  EXPECT_EQ(out.reason, "length");
  EXPECT_EQ(out.healed, std::vector<int>{1});
  EXPECT_EQ(Json::parse(out.message.calls.at(1).arguments), Json::parse(R"({"a":1})"));
  EXPECT_EQ(message_json(out.message, out.healed, ReasoningField::both)["nibble"]["healed_tool_calls"], Json({1}));
}

TEST(Reply, MatchesStopsOnContentOnly) {
  ReplyOptions options = with_tools();
  options.parser.reasoning_open = true;
  options.stop = {"END"};
  const Outcome out = run(options, {"think END</think>\n\n", call("add", R"({"a": "END"})"), "\nThe E", "ND and more"});
  EXPECT_EQ(out.message.reasoning, "think END");
  EXPECT_EQ(out.message.calls.at(0).arguments, R"({"a": "END"})");
  EXPECT_EQ(out.message.content, "The ");
  EXPECT_TRUE(out.complete);
  EXPECT_EQ(out.reason, "tool_calls");
  options.include_stop = true;
  EXPECT_EQ(run(options, {"</think>One END two"}).message.content, "One END");
}

TEST(Reply, StopBeforeTheLimitIsAStop) {
  ReplyOptions options;
  options.stop = {"END"};
  EXPECT_EQ(run(options, {"a END"}, true).reason, "stop");
  EXPECT_EQ(run(options, {"a EN"}, true).reason, "length");
  EXPECT_EQ(run(options, {"a EN"}, true).message.content, "a EN");
}

TEST(Reply, EndsAfterTheOneAllowedCall) {
  ReplyOptions options = with_tools();
  options.one_call = true;
  const Outcome out = run(options, {call("get_time", "{}") + "\n" + call("add", "{}") + "text"});
  EXPECT_EQ(out.message.calls.size(), 1u);
  EXPECT_EQ(out.message.content, "");
  EXPECT_TRUE(out.complete);
}

TEST(Reply, KeepsReasoningToItselfWhenAsked) {
  ReplyOptions options;
  options.parser.reasoning_open = true;
  EXPECT_EQ(run(options, {"why</think>\n\nso"}).message.reasoning, "why");
  options.include_reasoning = false;
  const Outcome out = run(options, {"why</think>\n\nso"});
  EXPECT_EQ(out.message.reasoning, "");
  EXPECT_EQ(out.message.content, "so");
}

TEST(Reply, SuppressedCallsAreNotSaid) {
  ReplyOptions options = with_tools();
  options.parser.suppress_calls = true;
  const Outcome out = run(options, {"Hi.\n" + call("get_time", "{}")});
  EXPECT_TRUE(out.message.calls.empty());
  EXPECT_EQ(out.message.content, "Hi.");
  EXPECT_EQ(out.reason, "stop");
}

// The message does not depend on how the engine cuts its text into events.
TEST(Reply, IsTheSameForEveryCut) {
  ReplyOptions options = with_tools();
  options.parser.reasoning_open = true;
  options.stop = {"STOP"};
  const std::string text = "Let me see.\n</think>\n\nFirst a call.\n" + call("add", R"({"a": "x STOP", "b": 2.5})") +
                           "\nThen text with S, ST, STO and\n" + call("get_time", "{}") + "\nSTOP never said";
  const Outcome whole = run(options, {text});
  Rng rng(7);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + rng.below(i % 2 ? 3 : 40);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    const Outcome out = run(options, pieces);
    EXPECT_EQ(out.message.content, whole.message.content);
    EXPECT_EQ(out.message.reasoning, whole.message.reasoning);
    ASSERT_EQ(out.message.calls.size(), whole.message.calls.size());
    for (size_t c = 0; c < out.message.calls.size(); ++c) {
      EXPECT_EQ(out.message.calls[c].arguments, whole.message.calls[c].arguments);
    }
    EXPECT_EQ(out.reason, whole.reason);
  }
}

TEST(ReplyJson, ADeltaHoldsOneThing) {
  const auto text = [](const Delta& delta, ReasoningField field = ReasoningField::reasoning_content) {
    return delta_json(delta, field).dump();
  };
  EXPECT_EQ(text({Delta::Kind::content, "a", 0, {}}), R"({"content":"a"})");
  EXPECT_EQ(text({Delta::Kind::reasoning, "a", 0, {}}), R"({"reasoning_content":"a"})");
  EXPECT_EQ(text({Delta::Kind::reasoning, "a", 0, {}}, ReasoningField::reasoning), R"({"reasoning":"a"})");
  EXPECT_EQ(text({Delta::Kind::reasoning, "a", 0, {}}, ReasoningField::both),
            R"({"reasoning_content":"a","reasoning":"a"})");
  EXPECT_EQ(text({Delta::Kind::call_begin, "f", 1, "call_x"}),
            R"({"tool_calls":[{"index":1,"id":"call_x","type":"function","function":{"name":"f","arguments":""}}]})");
  EXPECT_EQ(text({Delta::Kind::call_args, "{}", 1, {}}),
            R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})");
}

TEST(ReplyJson, AMessageHasContentOrCalls) {
  ReplyMessage message;
  EXPECT_EQ(message_json(message, {}, ReasoningField::reasoning_content).dump(),
            R"({"role":"assistant","content":"","refusal":null})");
  message.calls.push_back({"call_x", "f", "{}"});
  EXPECT_EQ(message_json(message, {}, ReasoningField::reasoning_content)["content"], nullptr);
  message.content = "a";
  EXPECT_EQ(message_json(message, {}, ReasoningField::reasoning_content)["content"], "a");
}

TEST(ReplyJson, RatesAreFinite) {
  ReplyUsage usage;
  EXPECT_EQ(timings_json(usage)["predicted_per_second"], 0.0);
  usage.engine.completion_tokens = 11;
  usage.engine.decode_ms = 100;
  EXPECT_EQ(timings_json(usage)["predicted_per_second"], 100.0);
}

}  // namespace
}  // namespace nibble::serve

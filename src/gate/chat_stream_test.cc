#include "gate/chat_stream.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "net/sse_reader.h"
#include "tests/support/chat_server.h"

namespace nibble::gate {
namespace {

// Feeds the bytes of a stream, an event a millisecond.
Result<StreamedReply> read(const std::string& bytes) {
  ChatStream stream;
  net::SseReader events;
  double at_ms = 0;
  Status status;
  NIBBLE_RETURN_IF_ERROR(events.feed(bytes, [&](const net::SseEvent& event) {
    status = stream.take(event.data, ++at_ms);
    return status.ok();
  }));
  NIBBLE_RETURN_IF_ERROR(status);
  NIBBLE_RETURN_IF_ERROR(stream.end());
  return std::move(stream.reply());
}

std::string data(const std::string& json) {
  return "data: " + json + "\n\n";
}
std::string delta(const std::string& json, const std::string& finish = "null") {
  return data(R"({"choices":[{"index":0,"delta":)" + json + R"(,"finish_reason":)" + finish + "}]}");
}
const std::string kRole = delta(R"({"role":"assistant"})");
const std::string kStop = delta("{}", "\"stop\"");
const std::string kDone = "data: [DONE]\n\n";

TEST(ChatStream, PutsAReplyTogether) {
  const Reply reply{.content = "Grüße!", .reasoning = "Hm.", .calls = {{"a", "f", R"({"x":1})"}, {"b", "g", "{}"}}};
  const auto read_back = read(test::chat_events(reply));
  ASSERT_TRUE(read_back.ok()) << read_back.status().text();
  EXPECT_EQ(read_back->reply.content, reply.content);
  EXPECT_EQ(read_back->reply.reasoning, reply.reasoning);
  ASSERT_EQ(read_back->reply.calls.size(), 2u);
  EXPECT_EQ(read_back->reply.calls[0].arguments, reply.calls[0].arguments);
  EXPECT_EQ(read_back->reply.calls[1].name, "g");
  EXPECT_EQ(read_back->finish, "tool_calls");
  EXPECT_EQ(read_back->usage.completion_tokens, 5);
  EXPECT_TRUE(read_back->disorder.empty());
  EXPECT_EQ(read_back->times.first_chunk_ms, 1);
  EXPECT_EQ(read_back->times.first_answer_ms, 3);  // reasoning is no answer
  EXPECT_EQ(read_back->times.answer_ms.size(), 6u);
}

TEST(ChatStream, ReadsWhatTheServerTimed) {
  const auto with = [](const std::string& timings) {
    return read(kRole + kStop + data(R"({"choices":[],"timings":)" + timings + "}") + kDone);
  };
  const auto timed = with(R"({"prompt_ms":12.5,"predicted_ms":100,"predicted_per_second":40,"prompt_n":7})");
  ASSERT_TRUE(timed.ok()) << timed.status().text();
  EXPECT_EQ(timed->timings.prompt_ms, 12.5);
  EXPECT_EQ(timed->timings.predicted_ms, 100);
  EXPECT_EQ(timed->timings.predicted_per_second, 40);
  for (const char* other : {"null", "3", "[]", R"({"prompt_ms":"x","predicted_ms":-4,"predicted_per_second":null})"}) {
    const auto untimed = with(other);
    ASSERT_TRUE(untimed.ok()) << untimed.status().text();
    EXPECT_EQ(untimed->timings.prompt_ms, -1) << other;
    EXPECT_EQ(untimed->timings.predicted_ms, -1) << other;
    EXPECT_EQ(untimed->timings.predicted_per_second, -1) << other;
  }
}

TEST(ChatStream, NotesWhatIsOutOfOrder) {
  const std::pair<std::string, const char*> streams[] = {
      {delta(R"({"content":"a"})") + kStop + kDone, "a delta before the role"},
      {kRole + kRole + kStop + kDone, "the role twice"},
      {delta(R"({"role":"user"})") + kStop + kDone, "a role other than assistant"},
      {kRole + kStop + delta(R"({"content":"a"})") + kDone, "content after finish_reason"},
      {kRole + kStop + kStop + kDone, "finish_reason twice"},
      {kRole + kStop, "no [DONE] at the end"},
      {kRole + kStop + kDone + kStop, "an event after [DONE]"},
      {kRole + data(R"({"choices":[],"usage":{}})") + kStop + kDone, "usage before finish_reason"},
      {kRole + delta(R"({"tool_calls":[{"id":"a","function":{"name":"f"}}]})") + kStop + kDone,
       "a call without an index"},
      {kRole + delta(R"({"tool_calls":[{"index":0,"function":{"name":"f"}}]})") + kStop + kDone,
       "a call without an id"},
      {kRole + delta(R"({"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]})") +
           delta(R"({"tool_calls":[{"index":0,"function":{"name":"f"}}]})") + kStop + kDone,
       "the name of a call twice"},
  };
  for (const auto& [stream, rule] : streams) {
    const auto reply = read(stream);
    ASSERT_TRUE(reply.ok()) << rule << ": " << reply.status().text();
    EXPECT_NE(std::find(reply->disorder.begin(), reply->disorder.end(), rule), reply->disorder.end()) << rule;
  }
}

TEST(ChatStream, SaysWhatIsWrong) {
  const std::string error = data(R"({"error":{"message":"out of memory"}})");
  EXPECT_EQ(read(error).status().code(), Code::unavailable);
  EXPECT_EQ(read(kRole + error).status().code(), Code::io);
  EXPECT_EQ(read(kRole + error).status().message(), "chat stream: the server broke off: out of memory");
  EXPECT_EQ(read(kRole).status().code(), Code::io);
  EXPECT_EQ(read("").status().code(), Code::unavailable);
  for (const std::string& stream : {data("<html>"), data("{}"), data(R"({"choices":[{}]})"), data("[]"),
                                    kRole + delta(R"({"tool_calls":[{"index":5,"function":{"name":"f"}}]})"),
                                    kRole + delta(R"({"tool_calls":[{"index":0,"function":{}}]})")}) {
    EXPECT_EQ(read(stream).status().code(), Code::corrupt) << stream;
  }
}

TEST(ChatStream, SurvivesMutations) {
  const std::string good = test::chat_events({.content = "Hello there", .calls = {{"a", "f", "{}"}}});
  Rng rng(3);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (uint32_t i = 0, n = 1 + rng.below(4); i < n; ++i) {
      bytes[rng.below(static_cast<uint32_t>(bytes.size()))] = good[rng.below(static_cast<uint32_t>(good.size()))];
    }
    const Status status = read(bytes).status();
    EXPECT_TRUE(status.ok() || status.code() == Code::corrupt || status.code() == Code::io ||
                status.code() == Code::unavailable)
        << status.text();
  }
}

TEST(StreamedReply, DecodeSpeedIsThatOfTheTokensAfterTheFirst) {
  StreamedReply reply;
  reply.usage.completion_tokens = 5;
  reply.times.answer_ms = {100, 150, 200};
  EXPECT_DOUBLE_EQ(reply.decode_tok_s(), 40);
  reply.times.answer_ms = {100};
  EXPECT_EQ(reply.decode_tok_s(), 0);
}

}  // namespace
}  // namespace nibble::gate

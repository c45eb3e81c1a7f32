#include "gate/chat_endpoint.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "tests/support/chat_server.h"

namespace nibble::gate {
namespace {

using test::LoopbackConnection;
using test::LoopbackRequest;
using test::LoopbackServer;

void say_hello(LoopbackConnection& connection) {
  connection.send(std::string(test::kStreamHead) + test::chat_events({.content = "Hello"}));
  connection.close();
}

EndpointOptions options_for(const LoopbackServer& server) {
  EndpointOptions options;
  options.url = server.url("/v1/");
  options.model = "m";
  options.first_backoff_s = 0.001;
  return options;
}

ChatRequest hello() {
  return {.messages = Json::array({{{"role", "user"}, {"content", "Hi"}}})};
}

TEST(History, AReplyGoesBackAsItCame) {
  const Reply reply{.content = "Hm.", .reasoning = "r", .calls = {{"7", "a", R"({"x":1})"}}};
  EXPECT_EQ(assistant_message(reply).dump(),
            R"({"role":"assistant","content":"Hm.","reasoning_content":"r","tool_calls":[{"id":"7","type":"function",)"
            R"("function":{"name":"a","arguments":"{\"x\":1}"}}]})");
  EXPECT_FALSE(assistant_message({.content = "Hm."}).contains("tool_calls"));
  EXPECT_EQ(tool_message(reply.calls[0], "{}").dump(), R"({"role":"tool","tool_call_id":"7","content":"{}"})");
}

TEST(ChatEndpoint, SendsWhatTheRequestSays) {
  std::string head, body;
  LoopbackServer server([&](const LoopbackRequest& request, LoopbackConnection& connection) {
    head = request.head;
    body = request.body;
    say_hello(connection);
  });
  EndpointOptions options = options_for(server);
  options.api_key = "key";
  ChatRequest request = hello();
  request.tools = Json::array({"tool"});
  request.params = {{"temperature", 0}};
  const auto reply = ChatEndpoint(options).complete(request);
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->reply.content, "Hello");
  EXPECT_EQ(head.substr(0, 36), "POST /v1/chat/completions HTTP/1.1\r\n");
  EXPECT_NE(head.find("Authorization: Bearer key\r\n"), std::string::npos);
  EXPECT_EQ(body, R"({"temperature":0,"model":"m","messages":[{"role":"user","content":"Hi"}],"tools":["tool"],)"
                  R"("stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(ChatEndpoint(options).complete(hello()).ok());
  EXPECT_EQ(body.find("tools"), std::string::npos);
}

TEST(ChatEndpoint, TimesAReply) {
  LoopbackServer server([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send(test::kStreamHead);
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    connection.send(test::chat_events({.content = "Hello"}));
    connection.close();
  });
  const auto reply = ChatEndpoint(options_for(server)).complete(hello());
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  const ReplyTimes& times = reply->times;
  EXPECT_GE(times.headers_ms, 0);
  EXPECT_LE(times.headers_ms, times.first_chunk_ms);
  EXPECT_GE(times.first_answer_ms, 29);
  EXPECT_LE(times.first_answer_ms, times.end_ms);
  EXPECT_EQ(times.answer_ms.size(), 2u);
}

TEST(ChatEndpoint, InterruptsAReply) {
  LoopbackServer server([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send(std::string(test::kStreamHead) +
                    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hello the\"}}]}\n\n");
    connection.wait_for_client();  // who never asks for more than this
  });
  ChatRequest request = hello();
  request.interrupt_after_chars = 5;
  const auto reply = ChatEndpoint(options_for(server)).complete(request);
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_TRUE(reply->interrupted);
  EXPECT_EQ(reply->reply.content, "Hello the");
}

// Fails `failures` times in a way of its own, then answers.
struct Flaky {
  const char* what;
  std::function<void(LoopbackConnection&)> failure;
};

TEST(ChatEndpoint, TriesAgainOnlyBeforeTheFirstToken) {
  const std::vector<Flaky> again = {
      {"closed without a byte", [](LoopbackConnection& c) { c.close(); }},
      {"429", [](LoopbackConnection& c) { c.reply(429, "{}", "Retry-After: 0\r\n"); }},
      {"503", [](LoopbackConnection& c) { c.reply(503, "{}"); }},
      {"headers only",
       [](LoopbackConnection& c) {
         c.send(test::kStreamHead);
         c.close();
       }},
      {"an error first",
       [](LoopbackConnection& c) {
         c.send(std::string(test::kStreamHead) + "data: {\"error\":{\"message\":\"busy\"}}\n\n");
         c.close();
       }},
  };
  for (const Flaky& flaky : again) {
    std::atomic<int> failures{3};
    LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
      failures-- > 0 ? flaky.failure(connection) : say_hello(connection);
    });
    ChatEndpoint endpoint(options_for(server));
    EXPECT_TRUE(endpoint.complete(hello()).ok()) << flaky.what;
    EXPECT_EQ(endpoint.retried(), 3) << flaky.what;
    failures = 4;
    EXPECT_EQ(ChatEndpoint(options_for(server)).complete(hello()).status().code(), Code::unavailable) << flaky.what;
  }
}

TEST(ChatEndpoint, GivesOtherErrorsAtOnce) {
  struct Final {
    std::function<void(LoopbackConnection&)> failure;
    Code code;
    std::string message;
  };
  const std::vector<Final> finals = {
      {[](LoopbackConnection& c) { c.reply(400, R"({"error":{"message":"n: expected 1"}})"); }, Code::invalid_argument,
       "/v1/chat/completions: expected status 200, got 400: n: expected 1"},
      {[](LoopbackConnection& c) { c.reply(404, "<html>"); }, Code::invalid_argument,
       "/v1/chat/completions: expected status 200, got 404: <html>"},
      {[](LoopbackConnection& c) {
         c.send(std::string(test::kStreamHead) + "data: <html>\n\n");
         c.close();
       },
       Code::corrupt, "chat stream: expected valid JSON"},
      {[](LoopbackConnection& c) {
         c.send(std::string(test::kStreamHead) + "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n");
         c.close();
       },
       Code::io, "chat stream: expected a finish_reason"},
  };
  for (const Final& last : finals) {
    LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) { last.failure(connection); });
    const auto reply = ChatEndpoint(options_for(server)).complete(hello());
    EXPECT_EQ(reply.status().code(), last.code) << reply.status().text();
    EXPECT_EQ(reply.status().message().substr(0, last.message.size()), last.message);
    EXPECT_EQ(server.requests(), 1);
  }
}

TEST(ChatEndpoint, CancelEndsTheWaitBetweenAttempts) {
  EndpointOptions options;
  LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
    options.cancel.cancel();
    connection.reply(503, "{}", "Retry-After: 8\r\n");
  });
  options.url = server.url();
  EXPECT_EQ(ChatEndpoint(options).models().status().code(), Code::cancelled);
}

TEST(ChatEndpoint, ListsModels) {
  LoopbackServer server([](const LoopbackRequest& request, LoopbackConnection& connection) {
    EXPECT_EQ(request.head.substr(0, 15), "GET /v1/models ");
    connection.reply(200, R"({"data":[{"id":"a"},{"id":"b"},{}]})");
  });
  EXPECT_EQ(*ChatEndpoint(options_for(server)).models(), (std::vector<std::string>{"a", "b"}));
  LoopbackServer none([](const LoopbackRequest&, LoopbackConnection& connection) { connection.reply(200, "{}"); });
  EXPECT_EQ(ChatEndpoint(options_for(none)).models().status().code(), Code::corrupt);
}

}  // namespace
}  // namespace nibble::gate

#include "gate/chat_endpoint.h"

#include <gtest/gtest.h>

#include <atomic>

#include "base/rng.h"
#include "tests/support/loopback_server.h"

namespace nibble::gate {
namespace {

using test::LoopbackConnection;
using test::LoopbackRequest;
using test::LoopbackServer;

const char* const kHello = R"({"choices":[{"message":{"role":"assistant","content":"Hello"}}]})";

EndpointOptions options_for(const LoopbackServer& server) {
  EndpointOptions options;
  options.url = server.url("/v1/");
  options.model = "m";
  options.first_backoff_s = 0.001;
  return options;
}

Json hello() {
  return Json::array({{{"role", "user"}, {"content", "Hi"}}});
}

TEST(ParseReply, ReadsWhatServersSend) {
  const auto reply = parse_reply(
      R"({"choices":[{"message":{"content":null,"reasoning_content":"r","tool_calls":[
          {"id":"1","type":"function","function":{"name":"a","arguments":"{\"x\": 1}"}},
          {"function":{"name":"b","arguments":{"y":2}}}]}}]})");
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->content, "");
  EXPECT_EQ(reply->reasoning, "r");
  ASSERT_EQ(reply->calls.size(), 2u);
  EXPECT_EQ(reply->calls[0].arguments, R"({"x": 1})");
  EXPECT_EQ(reply->calls[1].arguments, R"({"y":2})");
  EXPECT_EQ(parse_reply(R"({"choices":[{"message":{"content":"c","reasoning":"r","tool_calls":null}}]})")->reasoning,
            "r");
}

TEST(ParseReply, RefusesTheRest) {
  for (const char* body :
       {"", "{}", "[]", "null", R"({"choices":[]})", R"({"choices":{}})", R"({"choices":[{}]})",
        R"({"choices":[{"message":{"content":[]}}]})", R"({"choices":[{"message":{"tool_calls":[{}]}}]})",
        R"({"choices":[{"message":{"tool_calls":[1]}}]})", "<html>"}) {
    EXPECT_EQ(parse_reply(body).status().code(), Code::corrupt) << body;
  }
}

TEST(ParseReply, SurvivesMutations) {
  const std::string good = R"({"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"a"}}]}}]})";
  Rng rng(3);
  for (int round = 0; round < 3000; ++round) {
    std::string body = good;
    for (uint32_t i = 0, n = 1 + rng.below(3); i < n; ++i) {
      const size_t at = rng.below(static_cast<uint32_t>(body.size()));
      body[at] = good[rng.below(static_cast<uint32_t>(good.size()))];
    }
    const auto reply = parse_reply(body);
    EXPECT_TRUE(reply.ok() || reply.status().code() == Code::corrupt) << reply.status().text();
  }
}

TEST(History, AReplyGoesBackAsItCame) {
  const Reply reply{.content = "Hm.", .reasoning = "r", .calls = {{"7", "a", R"({"x":1})"}}};
  const Json message = assistant_message(reply);
  const auto again = parse_reply(Json({{"choices", {{{"message", message}}}}}).dump());
  ASSERT_TRUE(again.ok()) << again.status().text();
  EXPECT_EQ(assistant_message(*again), message);
  EXPECT_FALSE(assistant_message({.content = "Hm."}).contains("tool_calls"));
  EXPECT_EQ(tool_message(reply.calls[0], "{}").dump(), R"({"role":"tool","tool_call_id":"7","content":"{}"})");
}

TEST(ChatEndpoint, SendsWhatTheRuleSays) {
  std::string head, body;
  LoopbackServer server([&](const LoopbackRequest& request, LoopbackConnection& connection) {
    head = request.head;
    body = request.body;
    connection.reply(200, kHello);
  });
  EndpointOptions options = options_for(server);
  options.api_key = "key";
  const auto reply = ChatEndpoint(options).complete(hello(), Json::array({"tool"}));
  ASSERT_TRUE(reply.ok()) << reply.status().text();
  EXPECT_EQ(reply->content, "Hello");
  EXPECT_EQ(head.substr(0, 36), "POST /v1/chat/completions HTTP/1.1\r\n");
  EXPECT_NE(head.find("Authorization: Bearer key\r\n"), std::string::npos);
  EXPECT_EQ(body, R"({"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":110,"temperature":0.0,)"
                  R"("tools":["tool"],"chat_template_kwargs":{"enable_thinking":false}})");
  options.thinking.reset();
  ASSERT_TRUE(ChatEndpoint(options).complete(hello(), Json::array()).ok());
  EXPECT_EQ(body.find("chat_template_kwargs"), std::string::npos);
  EXPECT_EQ(body.find("tools"), std::string::npos);
}

// Fails `failures` times in a way of its own, then answers.
struct Flaky {
  const char* what;
  std::function<void(LoopbackConnection&)> failure;
};

TEST(ChatEndpoint, TriesAgainOnlyBeforeTheFirstByte) {
  const std::vector<Flaky> again = {
      {"closed without a byte", [](LoopbackConnection& c) { c.close(); }},
      {"429", [](LoopbackConnection& c) { c.reply(429, "{}", "Retry-After: 0\r\n"); }},
      {"503", [](LoopbackConnection& c) { c.reply(503, "{}"); }},
  };
  for (const Flaky& flaky : again) {
    std::atomic<int> failures{3};
    LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
      failures-- > 0 ? flaky.failure(connection) : connection.reply(200, kHello);
    });
    ChatEndpoint endpoint(options_for(server));
    EXPECT_TRUE(endpoint.complete(hello(), Json::array()).ok()) << flaky.what;
    EXPECT_EQ(endpoint.retried(), 3) << flaky.what;
    failures = 4;
    EXPECT_EQ(ChatEndpoint(options_for(server)).complete(hello(), Json::array()).status().code(), Code::unavailable)
        << flaky.what;
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
      {[](LoopbackConnection& c) { c.reply(200, "<html>"); }, Code::corrupt, "chat reply: expected valid JSON"},
      {[](LoopbackConnection& c) {
         c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
         c.close();
       },
       Code::io, "http: "},
  };
  for (const Final& last : finals) {
    LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) { last.failure(connection); });
    const auto reply = ChatEndpoint(options_for(server)).complete(hello(), Json::array());
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

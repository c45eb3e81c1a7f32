// The whole server over a replay script, asked by the real client.
#include "tests/support/replay_server.h"

#include "tests/support/server_test.h"

namespace nibble::serve {
namespace {

constexpr const char* kChat = "/v1/chat/completions";

Json question(Json fields = Json::object(), const char* text = "Hi there") {
  Json body = {{"messages", {{{"role", "user"}, {"content", text}}}}};
  body.update(fields);
  return body;
}

net::HttpResponse post(const test::ReplayServer& server, const Json& body, const char* path = kChat) {
  net::HttpClient client;
  auto response = client.post(server.url(path), body.dump());
  EXPECT_TRUE(response.ok()) << response.status().text();
  return response.ok() ? *response : net::HttpResponse{};
}

Json ask(const test::ReplayServer& server, const Json& body) {
  const net::HttpResponse response = post(server, body);
  EXPECT_EQ(response.status, 200) << response.body;
  return Json::parse(response.body, nullptr, false);
}

StreamSum stream(const test::ReplayServer& server, Json body) {
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const net::HttpResponse response = post(server, body);
  EXPECT_EQ(response.status, 200) << response.body;
  return check_chat_stream(response.body, /*include_usage=*/true);
}

TEST(ReplayServer, IsAModelCalledReplay) {
  const test::ReplayServer server(R"({"chunks":[{"text":"Hello."}]})");
  net::HttpClient client;
  const auto models = client.get(server.url("/v1/models"));
  ASSERT_TRUE(models.ok());
  const Json model = Json::parse(models->body)["data"][0];
  EXPECT_EQ(model["id"], "replay");
  EXPECT_EQ(model["nibble"]["format"], "replay");
  EXPECT_EQ(ask(server, question())["model"], "replay");

  const test::ReplayServer named(R"({"chunks":[]})", {.model_id = "tiny"});
  EXPECT_EQ(ask(named, question({{"model", "tiny"}}))["model"], "tiny");
  EXPECT_EQ(post(named, question({{"model", "replay"}})).status, 404);
}

TEST(ReplayServer, AScriptWithAnErrorDoesNotStart) {
  const auto server = start_replay_server("{\"chunks\":[]}\n{\"chunk\":[]}");
  ASSERT_FALSE(server.ok());
  EXPECT_NE(server.status().message().find("script:2: "), std::string::npos) << server.status().text();
}

TEST(ReplayServer, StreamsAPlainReplyWithItsDelays) {
  const test::ReplayServer server(
      R"({"chunks":[{"text":"One ","delay_ms":40},{"text":"two ","delay_ms":40},{"text":"three.","delay_ms":40}]})");
  Json body = question({{"stream", true}});
  std::string all;
  std::vector<double> at_s;
  net::HttpClient client;
  const double asked = now_s();
  const auto response = client.post_stream(server.url(kChat), body.dump(), {}, [&](std::string_view bytes) {
    all += bytes;
    if (bytes.find("\"content\":\"") != std::string_view::npos) at_s.push_back(now_s());
    return true;
  });
  ASSERT_TRUE(response.ok()) << response.status().text();
  const StreamSum sum = check_chat_stream(all, false);
  EXPECT_EQ(sum.content, "One two three.");
  EXPECT_EQ(sum.finish_reason, "stop");
  ASSERT_FALSE(at_s.empty());
  EXPECT_GE(at_s.front() - asked, .039);
  EXPECT_GE(at_s.back() - asked, .119);
}

TEST(ReplayServer, CountsInUsage) {
  const test::ReplayServer server(R"({"chunks":[{"text":"<think>\nHm.\n</think>\n\n"},{"text":"Hello."}]})");
  const Json reply = ask(server, question());
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "Hello.");
  EXPECT_EQ(reply["choices"][0]["message"]["reasoning_content"], "Hm.");
  // <|im_start|>user, line feed, Hi there, <|im_end|>, line feed, <|im_start|>assistant, line feed; a token a byte
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 1 + 4 + 1 + 8 + 1 + 1 + 1 + 9 + 1);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 1 + 1 + 3 + 1 + 1 + 2 + 6);
  EXPECT_EQ(stream(server, question()).usage->at("completion_tokens"), reply["usage"]["completion_tokens"]);
}

TEST(ReplayServer, ACallInTheTextIsACall) {
  const test::ReplayServer server(
      R"({"chunks":[{"text":"Let me see.\n<tool"},{"text":"_call>\n{\"name\": \"get_weather\", \"arguments\": {\"ci"},)"
      R"({"text":"ty\": \"Agra\"}}\n</tool_call>"}]})");
  const Json body = question({{"tools", test_tools()}});
  const Json reply = ask(server, body)["choices"][0];
  EXPECT_EQ(reply["finish_reason"], "tool_calls");
  EXPECT_EQ(reply["message"]["content"], "Let me see.");
  ASSERT_EQ(reply["message"]["tool_calls"].size(), 1u);
  const Json call = reply["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "get_weather");
  EXPECT_EQ(Json::parse(call["arguments"].get<std::string>()), Json::parse(R"({"city":"Agra"})"));

  const StreamSum sum = stream(server, body);
  EXPECT_EQ(sum.finish_reason, "tool_calls");
  EXPECT_EQ(sum.content, "Let me see.");
  ASSERT_EQ(sum.calls.size(), 1u);
  EXPECT_EQ(sum.calls[0].name, "get_weather");
  EXPECT_EQ(sum.calls[0].arguments, call["arguments"]);

  // The same text to a client without tools is text, and with tool_choice "none" there is no call.
  EXPECT_EQ(ask(server, question())["choices"][0]["finish_reason"], "stop");
  const Json uncalled =
      ask(server, question({{"tools", test_tools()}, {"tool_choice", "none"}}))["choices"][0]["message"];
  EXPECT_EQ(uncalled["content"], "Let me see.");
  EXPECT_FALSE(uncalled.contains("tool_calls"));
}

TEST(ReplayServer, AToolLoopIsMatchedByItsPrompts) {
  const test::ReplayServer server(
      R"({"match":{"contains":["<tool_response>","sunny"]},"chunks":[{"text":"It is sunny."}]})"
      "\n"
      R"({"match":{"contains":"<|im_start|>user\nWeather?<|im_end|>"},"chunks":[{"text":"<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>"}]})");
  Json body = question({{"tools", test_tools()}}, "Weather?");
  const Json message = ask(server, body)["choices"][0]["message"];
  ASSERT_EQ(message["tool_calls"].size(), 1u);
  body["messages"].push_back(message);
  body["messages"].push_back(
      {{"role", "tool"}, {"tool_call_id", message["tool_calls"][0]["id"]}, {"content", "sunny"}});
  EXPECT_EQ(ask(server, body)["choices"][0]["message"]["content"], "It is sunny.");
}

// What a model does that thinks although it was told not to: the server keeps it out of what is said.
TEST(ReplayServer, ThinkingThatLeaksIsNotSaid) {
  const test::ReplayServer server(
      R"({"match":{"contains":"open"},"chunks":[{"text":"<thi"},{"text":"nk>\nThey greet me.\n</think>\n\nHello."}]})"
      "\n"
      R"({"chunks":[{"text":"</think>"},{"text":"\n\nHello."}]})");
  const Json off = {{"chat_template_kwargs", {{"enable_thinking", false}}}};
  for (const char* text : {"open", "closed"}) {
    const StreamSum sum = stream(server, question(off, text));
    EXPECT_EQ(sum.content, "Hello.") << text;
    EXPECT_EQ(sum.reasoning, text == std::string("open") ? "They greet me." : "") << text;
    EXPECT_EQ(ask(server, question(off, text))["choices"][0]["message"]["content"], "Hello.") << text;
  }
}

TEST(ReplayServer, TheScriptSaysHowAReplyEnds) {
  const test::ReplayServer server(
      R"({"chunks":[{"text":"<tool_call>\n{\"name\": \"get_time\", \"argu"}],"finish":"length"})");
  const Json body = question({{"tools", test_tools()}, {"max_tokens", 1}});
  const Json reply = ask(server, body)["choices"][0];
  EXPECT_EQ(reply["finish_reason"], "length");
  EXPECT_EQ(reply["message"]["tool_calls"][0]["function"]["arguments"], "{}");
  EXPECT_EQ(stream(server, body).finish_reason, "length");
}

TEST(ReplayServer, AStopStringEndsAReply) {
  const test::ReplayServer server(R"({"chunks":[{"text":"One. Two."},{"text":" Three.","delay_ms":600000}]})");
  EXPECT_EQ(ask(server, question({{"stop", "Two"}}))["choices"][0]["message"]["content"], "One. ");
}

TEST(ReplayServer, RefusesThenAnswers) {
  const test::ReplayServer server("{\"refuse\":true,\"times\":2}\n{\"chunks\":[{\"text\":\"Hello.\"}]}");
  for (int i = 0; i < 2; ++i) {
    const net::HttpResponse response = post(server, question());
    EXPECT_EQ(response.status, 429) << response.body;
    ASSERT_NE(response.header("retry-after"), nullptr);
    EXPECT_EQ(Json::parse(response.body)["error"]["code"], "queue_full");
  }
  EXPECT_EQ(ask(server, question())["choices"][0]["message"]["content"], "Hello.");
}

TEST(ReplayServer, ARequestWithoutAReplyIsAnErrorThatSaysSo) {
  const test::ReplayServer server(R"({"match":{"contains":"weather"},"chunks":[]})");
  for (const bool streamed : {false, true}) {
    const net::HttpResponse response = post(server, question({{"stream", streamed}}));
    EXPECT_EQ(response.status, 500) << response.body;
    const Json error = Json::parse(response.body, nullptr, false)["error"];
    EXPECT_EQ(error["code"], "internal");
    EXPECT_EQ(error["message"],
              fmt::format("replay: expected an entry for request {}, got none (script)", int{streamed}));
  }
}

TEST(ReplayServer, AnEngineThatFailsInTheMiddle) {
  const test::ReplayServer server(R"({"chunks":[{"text":"Hel"},{"text":"lo"}],"finish":"error"})");
  EXPECT_EQ(post(server, question()).status, 500);
  const net::HttpResponse streamed = post(server, question({{"stream", true}}));
  EXPECT_EQ(streamed.status, 200);
  EXPECT_NE(streamed.body.find("\"content\":\"lo\""), std::string::npos) << streamed.body;
  EXPECT_NE(streamed.body.find("data: {\"error\":{"), std::string::npos) << streamed.body;
  EXPECT_EQ(streamed.body.find("[DONE]"), std::string::npos);
}

TEST(ReplayServer, RawCompletionsReplayToo) {
  const test::ReplayServer server(
      "{\"match\":{\"contains\":\"two\"},\"chunks\":[{\"text\":\"2\"}]}\n{\"chunks\":[{\"text\":\"1\"}]}");
  const net::HttpResponse response = post(server, {{"prompt", {"one", "two"}}}, "/v1/completions");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json choices = Json::parse(response.body)["choices"];
  EXPECT_EQ(choices[0]["text"], "1");
  EXPECT_EQ(choices[1]["text"], "2");
}

TEST(ReplayServer, EightClientsAtOnce) {
  std::string script;
  for (int i = 0; i < 8; ++i) {
    script += fmt::format(R"({{"match":{{"contains":"client {}"}},"chunks":[{{"text":"for ","delay_ms":400}},)"
                          R"({{"text":"{}","delay_ms":400}}]}})"
                          "\n",
                          i, i);
  }
  const test::ReplayServer server(script);
  const Stopwatch clock;
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&server, i] {
      const std::string text = fmt::format("client {}", i);
      EXPECT_EQ(stream(server, question(Json::object(), text.c_str())).content, fmt::format("for {}", i));
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(clock.ms(), 799);
  EXPECT_LT(clock.ms(), 5000);  // one after the other it would be 6.4 s
}

TEST(ReplayServer, AClientThatLeavesEndsItsReply) {
  const test::ReplayServer server(R"({"chunks":[{"text":"Hello"},{"text":" again","delay_ms":600000}]})");
  net::HttpClient client;
  Json body = question({{"stream", true}});
  const auto response = client.post_stream(server.url(kChat), body.dump(), {}, [](std::string_view bytes) {
    return bytes.find("Hello") == std::string_view::npos;
  });
  EXPECT_TRUE(response.ok()) << response.status().text();
  const Stopwatch clock;
  server.stop(30);  // waits for what runs
  EXPECT_LT(clock.seconds(), 5);
}

}  // namespace
}  // namespace nibble::serve

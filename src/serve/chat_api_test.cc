// POST /v1/chat/completions over a real socket.
#include "serve/reply.h"
#include "tests/support/server_test.h"

namespace nibble::serve {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
using ChatApi = ServerTest;

TEST_F(ChatApi, AnswersWhole) {
  start();
  engine_->say({"Hel", "lo."});
  const Json reply = post_ok(kChat, chat());
  EXPECT_EQ(reply["id"].get<std::string>().substr(0, 9), "chatcmpl-");
  EXPECT_EQ(reply["object"], "chat.completion");
  EXPECT_EQ(reply["model"], "tiny-voice");
  EXPECT_EQ(reply["system_fingerprint"].get<std::string>().substr(0, 7), "nibble-");
  EXPECT_EQ(
      reply["choices"][0].dump(),
      R"({"index":0,"message":{"role":"assistant","content":"Hello.","refusal":null},"logprobs":null,"finish_reason":"stop"})");
  const Json& usage = reply["usage"];
  EXPECT_GT(usage["prompt_tokens"], 0);
  EXPECT_EQ(usage["total_tokens"].get<int>(),
            usage["prompt_tokens"].get<int>() + usage["completion_tokens"].get<int>());
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 2);
  for (const char* key : {"cache_n", "prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "predicted_per_second",
                          "queue_ms", "ttft_ms"}) {
    EXPECT_TRUE(reply["timings"].contains(key)) << key;
  }
}

TEST_F(ChatApi, Streams) {
  start();
  engine_->say({"Hel", "lo", "."});
  const StreamSum sum = stream_chat({}, true);
  EXPECT_EQ(sum.content, "Hello.");
  EXPECT_EQ(sum.finish_reason, "stop");
  EXPECT_EQ(sum.chunks.size(), 6u);  // role, three pieces, finish, usage
  EXPECT_EQ((*sum.usage)["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST_F(ChatApi, StreamsAnEmptyReply) {
  start();
  engine_->say(std::vector<std::string>{});
  EXPECT_EQ(stream_chat().content, "");
  engine_->say({""}, engine::Finish::length);
  EXPECT_EQ(stream_chat().finish_reason, "length");
}

struct Generated {
  std::vector<std::string> pieces;
  engine::Finish finish = engine::Finish::stop;
};

std::vector<Generated> generated_replies() {
  const std::string weather =
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln \\\"x\\\"\", \"days\": "
      "3}}\n</tool_call>";
  const std::string xml =
      "<tool_call>\n<function=get_weather>\n<parameter=city>\nPune\n</parameter>\n</function>\n</tool_call>";
  return {{{"Hello."}},
          {{"<think>\n", "why", "\n</think>\n\n", "So."}},
          {{"Let me look.\n", weather}},
          {{weather + "\n" + xml + "\nDone."}},
          {{"<think>Need it.", weather}},
          {{"<tool_call>\n{\"name\": \"get_weather\", \"arg"}, engine::Finish::length},
          {{"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Dal"}, engine::Finish::length},
          {{"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Dal"}, engine::Finish::stop},
          {{"One STOP two"}},
          {{"One ST", "OP two"}},
          {{"Weiß ", "🌧️", " ok"}, engine::Finish::length},
          {{}},
          {{"   \n"}}};
}

TEST_F(ChatApi, AStreamAddsUpToTheWholeReply) {
  start();
  for (const Generated& g : generated_replies()) {
    for (const bool with_tools : {false, true}) {
      for (const bool thinking : {false, true}) {
        Json fields = {{"stop", "STOP"}, {"chat_template_kwargs", {{"enable_thinking", thinking}}}};
        if (with_tools) fields["tools"] = test_tools();
        engine_->say(g.pieces, g.finish);
        const Json whole = post_ok(kChat, chat(fields));
        engine_->say(g.pieces, g.finish);
        const StreamSum sum = stream_chat(fields, true);
        const Json& message = whole["choices"][0]["message"];
        EXPECT_EQ(sum.content, message["content"].is_null() ? "" : message["content"].get<std::string>());
        EXPECT_EQ(sum.reasoning, message.value("reasoning_content", ""));
        EXPECT_EQ(sum.finish_reason, whole["choices"][0]["finish_reason"]);
        EXPECT_EQ((*sum.usage)["completion_tokens_details"], whole["usage"]["completion_tokens_details"]);
        const Json calls = message.value("tool_calls", Json::array());
        ASSERT_EQ(sum.calls.size(), calls.size());
        for (size_t i = 0; i < calls.size(); ++i) {
          EXPECT_EQ(sum.calls[i].name, calls[i]["function"]["name"]);
          EXPECT_EQ(sum.calls[i].arguments, calls[i]["function"]["arguments"]);
          EXPECT_TRUE(Json::accept(sum.calls[i].arguments));
          EXPECT_EQ(calls[i]["id"].get<std::string>().size(), 29u);
        }
        EXPECT_TRUE(with_tools || calls.empty());
      }
    }
  }
}

TEST_F(ChatApi, ReportsHealedCalls) {
  start();
  const std::vector<std::string> cut = {"<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Dal"};
  engine_->say(cut, engine::Finish::length);
  const Json whole = post_ok(kChat, chat({{"tools", test_tools()}}));
  EXPECT_EQ(whole["choices"][0]["message"]["nibble"]["healed_tool_calls"], Json({0}));
  engine_->say(cut, engine::Finish::length);
  const StreamSum sum = stream_chat({{"tools", test_tools()}});
  EXPECT_EQ(sum.chunks.back()["nibble"]["healed_tool_calls"], Json({0}));
  EXPECT_EQ(sum.finish_reason, "length");
}

TEST_F(ChatApi, TheRoleComesWithTheFirstDelta) {
  start();
  engine_->say(Script{.pieces = {"ok"}, .delay_s = 0.15});
  RawClient client(server_->port());
  client.send(raw_request("POST", kChat, chat({{"stream", true}}).dump()));
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_NE(head.find("200 OK"), std::string::npos);
  EXPECT_EQ(head.find("data:"), std::string::npos) << "nothing may be said before the first delta";
  const std::string rest = client.read_until("[DONE]\n\n");
  // One HTTP chunk: its size line stands before the role, and none between role and delta.
  const size_t role = rest.find("\"role\""), delta = rest.find("\"content\":\"ok\"");
  ASSERT_NE(delta, std::string::npos);
  EXPECT_EQ(rest.substr(role, delta - role).find("\r\n"), std::string::npos);
}

TEST_F(ChatApi, SendsHeadersAndPingsWhileItWaitsInTheQueue) {
  start({.ping_s = 0.05, .headers_after_s = 0.05});
  engine_->say(Script{.hangs = true});
  RawClient busy(server_->port()), client(server_->port());
  busy.send(raw_request("POST", kChat, chat().dump()));
  ASSERT_TRUE(comes_true([&] { return engine_->running(); }));
  const double sent_at = now_s();
  client.send(raw_request("POST", kChat, chat({{"stream", true}}).dump()));
  EXPECT_NE(client.read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  EXPECT_GE(now_s() - sent_at, 0.05);
  EXPECT_NE(client.read_until(": ping\n\n").find(": ping\n\n"), std::string::npos);
  busy.close();
  EXPECT_NE(client.read_until("[DONE]").find("\"ok\""), std::string::npos);
}

TEST_F(ChatApi, PingsThroughALongPrefill) {
  start({.ping_s = 0.05});
  engine_->say(Script{.pieces = {"a", "b"}, .delay_s = 0.2});
  EXPECT_GE(stream_chat().pings, 2);
}

TEST_F(ChatApi, StopStringsEndTheGeneration) {
  start();
  engine_->say(Script{.pieces = {"One ", "EN", "D two"}, .hangs = true});
  const Json reply = post_ok(kChat, chat({{"stop", {"END"}}}));
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "One ");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
  EXPECT_GT(engine_->cancelled_at(), 0);
  engine_->say(Script{.pieces = {"One END"}, .hangs = true});
  EXPECT_EQ(stream_chat({{"stop", "END"}, {"include_stop_str_in_output", true}}).content, "One END");
}

TEST_F(ChatApi, OneCallWhenCallsMayNotBeParallel) {
  start();
  const std::string call = "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";
  engine_->say(Script{.pieces = {call, "\n", call}, .hangs = true});
  const StreamSum sum = stream_chat({{"tools", test_tools()}, {"parallel_tool_calls", false}});
  EXPECT_EQ(sum.calls.size(), 1u);
  EXPECT_EQ(sum.finish_reason, "tool_calls");
}

TEST_F(ChatApi, ToolChoiceNoneMasksTheCall) {
  start();
  const int32_t tag = *tiny_tokenizer()->added_token("<tool_call>");
  const Json fields = {{"tools", test_tools()}};
  stream_chat(fields);
  const engine::Request free = engine_->last_request();
  EXPECT_TRUE(free.masked_token_ids.empty());
  engine_->say({"Hi.\n<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>"});
  const StreamSum sum = stream_chat({{"tools", test_tools()}, {"tool_choice", "none"}});
  EXPECT_EQ(engine_->last_request().masked_token_ids, std::vector<int32_t>{tag});
  EXPECT_EQ(engine_->last_request().prompt, free.prompt) << "the tools stay in the prompt";
  EXPECT_TRUE(sum.calls.empty());
  EXPECT_EQ(sum.content, "Hi.");
  EXPECT_EQ(sum.finish_reason, "stop");
}

TEST_F(ChatApi, PassesTheRequestOnToTheEngine) {
  start({.default_max_tokens = 100});
  post_ok(kChat, chat({{"temperature", 0},
                       {"top_p", 0.5},
                       {"top_k", 7},
                       {"min_p", 0.25},
                       {"seed", 42},
                       {"presence_penalty", 1},
                       {"frequency_penalty", -1},
                       {"repetition_penalty", 1.5},
                       {"max_tokens", 9},
                       {"max_completion_tokens", 12},
                       {"min_tokens", 3},
                       {"ignore_eos", true},
                       {"stop_token_ids", {5, 6}},
                       {"an_unknown_field", {1, 2}}}));
  const engine::Request r = engine_->last_request();
  EXPECT_EQ(r.sampling.temperature, 0.0f);
  EXPECT_EQ(r.sampling.top_p, 0.5f);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_EQ(r.sampling.min_p, 0.25f);
  EXPECT_EQ(r.sampling.presence_penalty, 1.0f);
  EXPECT_EQ(r.sampling.frequency_penalty, -1.0f);
  EXPECT_EQ(r.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(r.sampling.seed, 42u);
  EXPECT_EQ(r.max_tokens, 9);
  EXPECT_EQ(r.min_tokens, 3);
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_EQ(r.stop_token_ids, (std::vector<int32_t>{5, 6}));
  post_ok(kChat, chat());
  EXPECT_EQ(engine_->last_request().max_tokens, 100);
  post_ok(kChat, chat({{"max_tokens", 1000000}}));
  const engine::Request clipped = engine_->last_request();
  EXPECT_EQ(clipped.max_tokens + static_cast<int64_t>(clipped.prompt.size()), engine_->info().context);
}

TEST_F(ChatApi, CountsReasoningTokens) {
  start();
  const std::vector<std::string> pieces = {"<think>", "why", "</think>", "\n\nSo."};
  int64_t expected = 0;
  for (size_t i = 0; i < 3; ++i) {
    std::vector<int32_t> ids;
    ASSERT_TRUE(tiny_tokenizer()->encode(pieces[i], text::AddedTokens::parse, ids).ok());
    expected += static_cast<int64_t>(ids.size());
  }
  engine_->say(pieces);
  const Json reply = post_ok(kChat, chat());
  EXPECT_EQ(reply["choices"][0]["message"]["reasoning_content"], "why");
  EXPECT_EQ(reply["usage"]["completion_tokens_details"]["reasoning_tokens"], expected);
  engine_->say(pieces);
  EXPECT_EQ(stream_chat({{"include_reasoning", false}}).reasoning, "");
}

TEST_F(ChatApi, ReasoningFieldHasTheNameAskedFor) {
  start({.reasoning_field = ReasoningField::both});
  engine_->say({"<think>why</think>\n\nSo."});
  const Json message = post_ok(kChat, chat())["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "why");
  EXPECT_EQ(message["reasoning_content"], "why");
}

TEST_F(ChatApi, ASlowReaderGetsEverythingInFewerPieces) {
  start();
  Script script;
  std::string expected;
  for (int i = 0; i < 40000; ++i) {
    script.pieces.push_back(fmt::format("w{} ", i));
    expected += script.pieces.back();
  }
  engine_->say(std::move(script));
  RawClient client(server_->port(), 4096);
  client.send(raw_request("POST", kChat, chat({{"stream", true}}).dump(), "Connection: close\r\n"));
  ASSERT_TRUE(comes_true([&] { return engine_->finished() == 1; }));
  std::string raw = client.read_until("[DONE]\n\n", 10), content;
  size_t chunks = 0;
  constexpr std::string_view kField = "\"delta\":{\"content\":\"";
  for (size_t at = raw.find(kField); at != std::string::npos; at = raw.find(kField, at)) {
    at += kField.size();
    content += raw.substr(at, raw.find('"', at) - at);
    ++chunks;
  }
  EXPECT_EQ(content.size(), expected.size());
  EXPECT_TRUE(content == expected);
  EXPECT_LT(chunks, 40000u);
}

TEST_F(ChatApi, ManyStreamsAtOnce) {
  start();
  constexpr int kStreams = 32;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    engine_->say({"a", "b", "c"});
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->send(raw_request("POST", kChat, chat({{"stream", true}}).dump()));
  }
  for (const auto& client : clients) {
    EXPECT_NE(client->read_until("[DONE]\n\n").find("[DONE]"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::serve

// /v1/completions, /tokenize, /detokenize, /apply-template and /v1/parse over a real socket.
#include "tests/support/server_test.h"
#include "text/chat_parser.h"

namespace nibble::serve {
namespace {

using TextApi = ServerTest;
constexpr const char* kCompletions = "/v1/completions";

std::vector<int32_t> ids_of(const std::string& text) {
  std::vector<int32_t> ids;
  EXPECT_TRUE(tiny_tokenizer()->encode(text, text::AddedTokens::parse, ids).ok());
  return ids;
}

TEST_F(TextApi, CompletesAString) {
  start();
  engine_->say({"<think>", " raw text"});
  const Json reply = post_ok(kCompletions, {{"prompt", "<|im_start|>user\nHi"}, {"max_tokens", 7}});
  EXPECT_EQ(reply["object"], "text_completion");
  EXPECT_EQ(reply["choices"].dump(),
            R"([{"index":0,"text":"<think> raw text","logprobs":null,"finish_reason":"stop"}])");
  EXPECT_EQ(engine_->last_request().prompt, ids_of("<|im_start|>user\nHi"));
  EXPECT_EQ(engine_->last_request().max_tokens, 7);
  EXPECT_EQ(reply["usage"]["prompt_tokens"].get<size_t>(), ids_of("<|im_start|>user\nHi").size());
}

TEST_F(TextApi, CompletesTokensAndBatches) {
  start();
  post_ok(kCompletions, {{"prompt", {5, 6, 7}}});
  EXPECT_EQ(engine_->last_request().prompt, (std::vector<int32_t>{5, 6, 7}));
  engine_->say({"one"});
  engine_->say({"two"}, engine::Finish::length);
  const Json reply = post_ok(kCompletions, {{"prompt", {"a", "b"}}});
  EXPECT_EQ(reply["choices"].dump(), R"([{"index":0,"text":"one","logprobs":null,"finish_reason":"stop"},)"
                                     R"({"index":1,"text":"two","logprobs":null,"finish_reason":"length"}])");
  const size_t prompt_tokens = ids_of("a").size() + ids_of("b").size();
  EXPECT_EQ(reply["usage"]["prompt_tokens"].get<size_t>(), prompt_tokens);
}

TEST_F(TextApi, StopsOnRawText) {
  start();
  engine_->say(Script{.pieces = {"a <th", "ink> b"}, .hangs = true});
  const Json reply = post_ok(kCompletions, {{"prompt", "x"}, {"stop", "<think>"}});
  EXPECT_EQ(reply["choices"][0]["text"], "a ");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
}

TEST_F(TextApi, StreamsCompletions) {
  start();
  engine_->say({"on", "e"});
  engine_->say({"tw", "o"});
  const net::HttpResponse response =
      post(kCompletions,
           Json{{"prompt", {"a", "b"}}, {"stream", true}, {"stream_options", {{"include_usage", true}}}}.dump());
  auto data = sse_data(response.body);
  ASSERT_EQ(data.back(), "[DONE]");
  data.pop_back();
  std::array<std::string, 2> text, finish;
  for (const std::string& event : data) {
    const Json chunk = Json::parse(event);
    EXPECT_EQ(chunk["object"], "text_completion");
    if (chunk["choices"].empty()) {
      EXPECT_EQ(&event, &data.back());
      EXPECT_EQ(chunk["usage"]["total_tokens"].get<int>(),
                chunk["usage"]["prompt_tokens"].get<int>() + chunk["usage"]["completion_tokens"].get<int>());
      continue;
    }
    EXPECT_EQ(chunk["usage"], nullptr);
    const Json& choice = chunk["choices"][0];
    text.at(choice["index"].get<size_t>()) += choice["text"].get<std::string>();
    if (!choice["finish_reason"].is_null()) finish.at(choice["index"].get<size_t>()) = choice["finish_reason"];
  }
  EXPECT_EQ(text, (std::array<std::string, 2>{"one", "two"}));
  EXPECT_EQ(finish, (std::array<std::string, 2>{"stop", "stop"}));
}

TEST_F(TextApi, RefusesPromptsThatNoModelCanContinue) {
  start();
  EXPECT_EQ(post(kCompletions, R"({"prompt":""})").status, 400);
  EXPECT_EQ(post(kCompletions, R"({"prompt":[999999]})").status, 400);
  EXPECT_EQ(post(kCompletions, R"({"prompt":["a",""]})").status, 400);
  EXPECT_EQ(engine_->finished(), 0);
}

TEST_F(TextApi, TokenizesThereAndBack) {
  start();
  const std::string text = "Grüße, <|im_start|> 12";
  const Json tokens = post_ok("/tokenize", {{"content", text}});
  EXPECT_EQ(tokens["tokens"].get<std::vector<int32_t>>(), ids_of(text));
  EXPECT_EQ(tokens["count"].get<size_t>(), ids_of(text).size());
  EXPECT_EQ(tokens["max_model_len"], 4096);
  EXPECT_EQ(post_ok("/detokenize", {{"tokens", tokens["tokens"]}})["content"], text);
  for (const char* bad :
       {R"({"content":1})", "{}", R"({"content":null})", R"({"content":"a","add_special_tokens":1})"}) {
    EXPECT_EQ(post("/tokenize", bad).status, 400) << bad;
  }
  for (const char* bad :
       {R"({"tokens":[-1]})", R"({"tokens":[999999]})", R"({"tokens":"a"})", "{}", R"({"tokens":[1.5]})"}) {
    EXPECT_EQ(post("/detokenize", bad).status, 400) << bad;
  }
}

TEST_F(TextApi, ShowsThePromptThatChatWouldUse) {
  start();
  const Json shown = post_ok("/apply-template", chat());
  EXPECT_EQ(shown["prompt"], "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(shown["reasoning_open"], false);
  post_ok("/v1/chat/completions", chat());
  EXPECT_EQ(engine_->last_request().prompt.size(), shown["n_tokens"].get<size_t>());
  EXPECT_EQ(engine_->last_request().prompt, post_ok("/tokenize", chat())["tokens"].get<std::vector<int32_t>>());
  EXPECT_EQ(post_ok("/apply-template", chat({{"add_generation_prompt", false}}))["prompt"],
            "<|im_start|>user\nHi there<|im_end|>\n");
}

TEST_F(TextApi, ControlTokensTypedByUsersArePlainText) {
  start();
  Json body = chat();
  body["messages"][0]["content"] = "a <|im_end|> b";
  post_ok("/v1/chat/completions", body);
  const auto prompt = engine_->last_request().prompt;
  const int32_t end = *tiny_tokenizer()->added_token("<|im_end|>");
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), end), 1);
}

TEST_F(TextApi, ThinkingIsSetByRequestThenServerThenTemplate) {
  const std::string off = "<think>\n\n</think>\n\n";
  const auto is_off = [&](const Json& fields) {
    return post_ok("/apply-template", chat(fields))["prompt"].get<std::string>().ends_with(off);
  };
  const Json kwargs_off = {{"chat_template_kwargs", {{"enable_thinking", false}}}};
  start();
  EXPECT_FALSE(is_off(Json::object()));
  EXPECT_TRUE(is_off(kwargs_off));
  EXPECT_TRUE(is_off({{"reasoning_effort", "none"}}));
  EXPECT_FALSE(is_off({{"reasoning_effort", "low"}}));
  EXPECT_FALSE(is_off({{"reasoning_effort", "none"}, {"chat_template_kwargs", {{"enable_thinking", true}}}}));
  EXPECT_FALSE(is_off({{"chat_template_kwargs", {{"enable_thinking", nullptr}, {"unread", {1}}}}}));
  start({.thinking = Thinking::off});
  EXPECT_TRUE(is_off(Json::object()));
  EXPECT_FALSE(is_off({{"reasoning_effort", "high"}}));
  const net::HttpResponse bad =
      post("/apply-template", chat({{"chat_template_kwargs", {{"enable_thinking", "false"}}}}).dump());
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(Json::parse(bad.body)["error"]["param"], "chat_template_kwargs.enable_thinking");
}

TEST_F(TextApi, NormalisesWhatTemplatesCannotTake) {
  start();
  const Json body = Json::parse(R"({"messages":[{"role":"system","content":"one"},{"role":"developer","content":"two"},
      {"role":"user","content":"q"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",
       "function":{"name":"get_time","arguments":"{\"a\":1}"}}]},
      {"role":"tool","tool_call_id":"c","content":"noon"}]})");
  const std::string prompt = post_ok("/apply-template", body)["prompt"];
  EXPECT_EQ(prompt.find("<|im_start|>system\none\n\ntwo<|im_end|>\n"), 0u) << prompt;
  EXPECT_NE(prompt.find("<tool_response>\nnoon"), std::string::npos);
  EXPECT_EQ(post("/apply-template", R"({"messages":[{"role":"system","content":"only"}]})").status, 200);
}

TEST_F(TextApi, ToolsLoseWhatModelsWereNotTrainedOn) {
  start();
  const std::string prompt = post_ok("/apply-template", chat({{"tools", test_tools()}}))["prompt"];
  EXPECT_NE(prompt.find("get_weather"), std::string::npos);
  EXPECT_EQ(prompt.find("\"strict\""), std::string::npos);
  EXPECT_EQ(prompt.find("\"title\""), std::string::npos);
  start({.tools_verbatim = true});
  const std::string verbatim = post_ok("/apply-template", chat({{"tools", test_tools()}}))["prompt"];
  EXPECT_NE(verbatim.find("\"strict\""), std::string::npos);
}

TEST_F(TextApi, ParsesAsTheParserDoes) {
  start();
  const std::string texts[] = {
      "Hello.",
      "why\n</think>\n\nHello.",
      "Look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"A\"}}\n</tool_call>",
      "<tool_call>\n<function=get_weather>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\nDone.",
      "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Dal",
  };
  for (const std::string& text : texts) {
    for (const bool open : {false, true}) {
      for (const bool cut : {false, true}) {
        text::ParserOptions options;
        options.tools = test_tools();
        options.reasoning_open = open;
        const text::ParsedMessage expected = text::parse_reply(text, options, cut);
        Json body = {{"tools", test_tools()}, {"thinking_open", open}, {"finish", cut ? "length" : "stop"}};
        body["text"] = text;
        const Json whole = post_ok("/v1/parse", body);
        const Json& message = whole["message"];
        EXPECT_EQ(message["content"].is_null() ? "" : message["content"].get<std::string>(), expected.content);
        EXPECT_EQ(message.value("reasoning_content", ""), expected.reasoning);
        const Json calls = message.value("tool_calls", Json::array());
        ASSERT_EQ(calls.size(), expected.calls.size());
        for (size_t i = 0; i < calls.size(); ++i) {
          EXPECT_EQ(calls[i]["function"]["arguments"], expected.calls[i].arguments);
        }
        body.erase("text");
        body["chunks"] = {text.substr(0, text.size() / 2), text.substr(text.size() / 2)};
        const Json chunked = post_ok("/v1/parse", body);
        EXPECT_EQ(chunked["finish_reason"], whole["finish_reason"]);
        EXPECT_EQ(chunked["message"]["content"], message["content"]);
        for (const Json& delta : chunked["deltas"]) EXPECT_EQ(delta.size(), 1u);
      }
    }
  }
  for (const char* bad : {"{}", R"({"text":"a","chunks":[]})", R"({"text":1})", R"({"chunks":"a"})",
                          R"({"chunks":[1]})", R"({"text":"a","tool_parser":"x"})", R"({"text":"a","finish":"x"})",
                          R"({"text":"a","tools":1})", R"({"text":"a","thinking_open":1})"}) {
    EXPECT_EQ(post("/v1/parse", bad).status, 400) << bad;
  }
}

}  // namespace
}  // namespace nibble::serve

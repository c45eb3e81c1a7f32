// Everything of the server but the replies themselves: routes, keys, hosts, errors, cancellation, draining.
#include "serve/server.h"

#include "base/rng.h"
#include "serve/router.h"
#include "tests/support/server_test.h"

namespace nibble::serve {
namespace {

constexpr const char* kChat = "/v1/chat/completions";

void expect_error(const net::HttpResponse& response, int status, const std::string& type, const std::string& code) {
  EXPECT_EQ(response.status, status) << response.body;
  const Json body = Json::parse(response.body, nullptr, false);
  ASSERT_TRUE(body.is_object() && body.contains("error")) << response.body;
  for (const char* key : {"message", "type", "param", "code"}) EXPECT_TRUE(body["error"].contains(key));
  EXPECT_EQ(body["error"]["type"], type);
  EXPECT_EQ(body["error"]["code"], code);
}

std::string path_of(const Route& route) {
  return std::string(route.path) + (route.path.ends_with('/') ? "x" : "");
}

TEST_F(ServerTest, RefusesWrongMethodsAndUnknownPaths) {
  start();
  for (const Route& route : routes()) {
    RawClient client(server_->port());
    client.send(raw_request("DELETE", path_of(route)) + raw_request("OPTIONS", path_of(route)));
    const std::string replies = client.read_until("204 No Content");
    EXPECT_EQ(replies.find("HTTP/1.1 405"), 0u) << replies;
    EXPECT_NE(replies.find(fmt::format("Allow: {}", route.method)), std::string::npos) << replies;
  }
  expect_error(get("/nowhere"), 404, "invalid_request_error", "not_found");
  expect_error(get("/v1/chat/completions"), 405, "invalid_request_error", "method_not_allowed");
  expect_error(get("/v1/chat/completions/"), 404, "invalid_request_error", "not_found");
  RawClient client(server_->port());
  client.send(raw_request("GET", "/v1/../health"));  // an HTTP client would resolve the dots itself
  EXPECT_EQ(client.read_until("}").find("HTTP/1.1 404"), 0u);
}

TEST_F(ServerTest, AnswersHeadLikeGet) {
  start();
  RawClient client(server_->port());
  client.send(raw_request("HEAD", "/v1/models") + raw_request("GET", "/health"));
  const std::string replies = client.read_until("{\"status\":\"ok\"}");
  EXPECT_EQ(replies.find("HTTP/1.1 200"), 0u);
  EXPECT_EQ(replies.find("\"object\""), std::string::npos);
}

TEST_F(ServerTest, EveryRouteButHealthNeedsTheKey) {
  start({.api_key = "s3cret"});
  for (const Route& route : routes()) {
    for (const char* header : {"", "Authorization: Bearer wrong\r\n", "X-Api-Key: \r\n"}) {
      RawClient client(server_->port());
      client.send(raw_request(route.method, path_of(route), route.method == "POST" ? "{}" : "", header));
      const std::string reply = client.read_until("}");
      if (route.path == "/health") {
        EXPECT_EQ(reply.find("HTTP/1.1 200"), 0u) << reply;
      } else {
        EXPECT_EQ(reply.find("HTTP/1.1 401"), 0u) << route.path;
        EXPECT_NE(reply.find("WWW-Authenticate: Bearer"), std::string::npos);
      }
    }
  }
  expect_error(get("/nowhere"), 401, "authentication_error", "invalid_api_key");
  EXPECT_EQ(get("/v1/models", {{"Authorization", "Bearer s3cret"}}).status, 200);
  EXPECT_EQ(get("/v1/models", {{"X-Api-Key", "s3cret"}}).status, 200);
}

TEST_F(ServerTest, RefusesForeignHosts) {
  start({.allowed_hosts = {"box.lan"}});
  expect_error(get("/health", {{"Host", "evil.example"}}), 403, "permission_error", "host_not_allowed");
  for (const char* host : {"localhost", "127.0.0.1:1", "box.lan:8080"}) {
    EXPECT_EQ(get("/health", {{"Host", host}}).status, 200) << host;
  }
}

TEST_F(ServerTest, StartsBeyondLoopbackOnlyWithAKey) {
  const auto try_start = [](ServeOptions options) {
    options.port = 0;
    return Server::start(std::move(options), std::make_shared<ScriptedEngine>(tiny_tokenizer()), tiny_tokenizer(),
                         tiny_template());
  };
  const auto refused = try_start({.host = "0.0.0.0"});
  EXPECT_EQ(refused.status().code(), Code::invalid_argument);
  EXPECT_NE(refused.status().hint().find("--api-key-file"), std::string::npos);
  EXPECT_TRUE(try_start({.host = "0.0.0.0", .api_key = "k"}).ok());
  EXPECT_TRUE(try_start({.host = "0.0.0.0", .insecure = true}).ok());
  EXPECT_EQ(try_start({.host = "no.such.host", .api_key = "k"}).status().code(), Code::invalid_argument);
  EXPECT_EQ(try_start({.model_id = ""}).status().code(), Code::invalid_argument);
}

TEST_F(ServerTest, ErrorsHaveTheirFormAndStatus) {
  start({.limits = {.body_bytes = 100000}});
  const char* kInvalid = "invalid_request_error";
  expect_error(post(kChat, "{"), 400, kInvalid, "invalid_value");
  expect_error(post(kChat, "[]"), 400, kInvalid, "invalid_value");
  expect_error(post(kChat, chat({{"temperature", 9}}).dump()), 400, kInvalid, "invalid_value");
  expect_error(post(kChat, chat({{"tools", {1}}}).dump()), 400, kInvalid, "invalid_tool");
  expect_error(post(kChat, R"({"messages":[{"role":"user","content":[{"type":"input_audio"}]}]})"), 400, kInvalid,
               "unsupported_content");
  expect_error(post(kChat, chat({{"model", "gpt-4.1"}}).dump()), 404, kInvalid, "model_not_found");
  expect_error(post(kChat, std::string(100001, ' ')), 413, kInvalid, "body_too_large");
  expect_error(post(kChat, "{}", {{"Content-Type", "text/plain"}}), 415, kInvalid, "bad_content_type");
  expect_error(post(kChat, "{}", {{"Content-Encoding", "gzip"}}), 415, kInvalid, "bad_content_type");
  expect_error(get("/health", {{"X-Big", std::string(20000, 'x')}}), 431, kInvalid, "headers_too_large");
  expect_error(get("/v1/models/other"), 404, kInvalid, "model_not_found");
}

TEST_F(ServerTest, TooLongAPromptIsRefusedBeforeTheQueue) {
  start();
  std::string text;
  while (text.size() < 60000) text += "one two three ";
  for (const bool stream : {false, true}) {
    Json body = chat({{"stream", stream}});
    body["messages"][0]["content"] = text;
    const net::HttpResponse response = post(kChat, body.dump());
    expect_error(response, 400, "exceed_context_size_error", "context_length_exceeded");
    const Json error = Json::parse(response.body)["error"];
    EXPECT_EQ(error["n_ctx"], 4096);
    EXPECT_GE(error["n_prompt_tokens"], 4096);
  }
  expect_error(post("/v1/completions", Json{{"prompt", text}}.dump()), 400, "exceed_context_size_error",
               "context_length_exceeded");
  EXPECT_EQ(engine_->finished(), 0);
}

TEST_F(ServerTest, AFullQueueIs429) {
  start();
  engine_->set_max_queue(0);
  for (const bool stream : {false, true}) {
    const net::HttpResponse response = post(kChat, chat({{"stream", stream}}).dump());
    expect_error(response, 429, "rate_limit_error", "queue_full");
    EXPECT_EQ(*response.header("retry-after"), "1");
    EXPECT_EQ(*response.header("retry-after-ms"), "1000");
  }
  engine_->set_max_queue(1);
  EXPECT_EQ(post(kChat, chat().dump()).status, 200);
}

TEST_F(ServerTest, AFaultOfTheEngineIs500AndOthersLive) {
  start();
  const Script fault{.finish = engine::Finish::error, .error = io("disk: gone")};
  engine_->say(fault);
  const net::HttpResponse whole = post(kChat, chat().dump());
  expect_error(whole, 500, "server_error", "internal");
  EXPECT_EQ(whole.body.find("disk"), std::string::npos) << "causes are for the log";

  Script late = fault;
  late.pieces = {"Hel"};
  engine_->say(late);
  const net::HttpResponse stream = post(kChat, chat({{"stream", true}}).dump());
  EXPECT_EQ(stream.status, 200);
  const auto data = sse_data(stream.body);
  ASSERT_EQ(data.size(), 3u);  // role, piece, error; no [DONE]
  const Json error = Json::parse(data.back())["error"];
  EXPECT_EQ(error["type"], "server_error");
  for (const char* key : {"message", "type", "param", "code"}) EXPECT_TRUE(error.contains(key));

  engine_->say(Script{.finish = engine::Finish::error, .error = unavailable("queue: waited 30 s")});
  const net::HttpResponse timeout = post(kChat, chat().dump());
  expect_error(timeout, 503, "unavailable_error", "queue_timeout");
  EXPECT_NE(timeout.header("retry-after"), nullptr);
  EXPECT_EQ(post(kChat, chat().dump()).status, 200);
}

TEST_F(ServerTest, ALostGpuIs503WithTheReason) {
  start();
  const Status lost(Code::device, "cuda:0: attention: an illegal memory access was encountered");
  engine_->say(Script{.finish = engine::Finish::error, .error = lost});
  const net::HttpResponse first = post(kChat, chat().dump());  // in which it is lost
  expect_error(first, 503, "unavailable_error", "device_lost");
  EXPECT_NE(first.body.find("illegal memory access"), std::string::npos);
  EXPECT_EQ(get("/health").status, 200);

  engine_->lose(lost);
  for (const bool stream : {false, true}) {
    const net::HttpResponse later = post(kChat, chat({{"stream", stream}}).dump());
    expect_error(later, 503, "unavailable_error", "device_lost");
    EXPECT_NE(later.body.find("illegal memory access"), std::string::npos);
  }
  expect_error(get("/health"), 503, "unavailable_error", "device_lost");
  EXPECT_EQ(get("/v1/models").status, 200) << "what needs no GPU is still answered";
}

// The engine must see the cancellation of a request whose client leaves, wherever the request is.
class Leaving : public ServerTest {
 protected:
  void expect_cancelled(RawClient& client, int finished_before) {
    const double left_at = now_s();
    client.close();
    ASSERT_TRUE(comes_true([&] { return engine_->cancelled_at() > left_at; }));
    EXPECT_GE(engine_->finished(), finished_before);
  }
};

TEST_F(Leaving, InMidStream) {
  start();
  engine_->say(Script{.pieces = {"Hel", "lo"}, .hangs = true});
  RawClient client(server_->port());
  client.send(raw_request("POST", kChat, chat({{"stream", true}}).dump()));
  client.read_until("\"lo\"");
  expect_cancelled(client, 0);
}

TEST_F(Leaving, BeforeTheFirstToken) {
  start();
  for (const bool stream : {false, true}) {
    engine_->say(Script{.hangs = true});
    RawClient client(server_->port());
    client.send(raw_request("POST", kChat, chat({{"stream", stream}}).dump()));
    ASSERT_TRUE(comes_true([&] { return engine_->running(); }));
    expect_cancelled(client, 0);
    ASSERT_TRUE(comes_true([&] { return !engine_->running(); }));
  }
}

TEST_F(Leaving, WhileQueued) {
  start();
  engine_->say(Script{.hangs = true});
  RawClient running(server_->port()), queued(server_->port());
  running.send(raw_request("POST", kChat, chat().dump()));
  ASSERT_TRUE(comes_true([&] { return engine_->running(); }));
  queued.send(raw_request("POST", kChat, chat().dump()));
  ASSERT_TRUE(comes_true([&] { return engine_->waiting() == 1; }));
  expect_cancelled(queued, 0);
  EXPECT_EQ(engine_->waiting(), 0);
  EXPECT_TRUE(engine_->running()) << "another client's leaving must not touch this one";
  expect_cancelled(running, 0);
}

TEST_F(Leaving, InTheMiddleOfABatch) {
  start();
  // The first prompt has long ended when its submission returns: who leaves then must still reach the second.
  engine_->say(Script{.pieces = {"first"}, .returns_late_s = 0.05});
  engine_->say(Script{.pieces = {"second"}, .delay_s = 0.1, .hangs = true});
  RawClient client(server_->port());
  client.send(raw_request("POST", "/v1/completions", R"({"prompt":["a","b","c"],"stream":true})"));
  client.read_until("second");
  expect_cancelled(client, 1);
  ASSERT_TRUE(comes_true([&] { return engine_->finished() == 2; }));
  EXPECT_FALSE(engine_->running()) << "the third prompt is not started";
}

TEST_F(ServerTest, StopLetsARequestFinish) {
  start();
  engine_->say(Script{.pieces = {"a", "b"}, .delay_s = 0.1});
  RawClient client(server_->port()), kept(server_->port());
  kept.send(raw_request("GET", "/health"));
  kept.read_until("ok");
  client.send(raw_request("POST", kChat, chat({{"stream", true}}).dump()));
  ASSERT_TRUE(comes_true([&] { return engine_->running(); }));
  std::thread waiter([&] { server_->wait(); });
  server_->stop(5);
  waiter.join();
  EXPECT_NE(client.read_until("[DONE]").find("[DONE]"), std::string::npos);
  EXPECT_TRUE(kept.closes_within(1));
}

TEST_F(ServerTest, StopCancelsWhatHangs) {
  start();
  engine_->say(Script{.hangs = true});
  RawClient client(server_->port());
  client.send(raw_request("POST", kChat, chat().dump()));
  ASSERT_TRUE(comes_true([&] { return engine_->running(); }));
  const Stopwatch watch;
  server_->stop(0.05);
  EXPECT_LT(watch.seconds(), 2);
  EXPECT_GT(engine_->cancelled_at(), 0);
  EXPECT_TRUE(client.closes_within(1));
}

TEST_F(ServerTest, ListsItsModels) {
  start({.aliases = {"org/other"}});
  const Json list = Json::parse(get("/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][1]["id"], "org/other");
  const Json model = list["data"][0];
  EXPECT_EQ(model["id"], "tiny-voice");
  EXPECT_EQ(model["object"], "model");
  EXPECT_EQ(model["owned_by"], "nibble");
  EXPECT_EQ(model["max_model_len"], 4096);
  EXPECT_EQ(
      model["nibble"].dump(),
      R"({"format":"nvfp4","quant":"W4A16_NVFP4","activations":"a16","parser":"auto","thinking_default":"auto"})");
  EXPECT_EQ(Json::parse(get("/v1/models/tiny-voice").body), model);
  EXPECT_EQ(get("/v1/models/org/other").status, 200);
  EXPECT_EQ(get("/v1/models/org%2Fother").status, 200);
  EXPECT_EQ(post(kChat, chat({{"model", "org/other"}}).dump()).status, 200);
}

TEST_F(ServerTest, AnyModelIsThisOneWhenToldSo) {
  start({.any_model = true});
  EXPECT_EQ(post_ok(kChat, chat({{"model", "gpt-4.1"}}))["model"], "tiny-voice");
}

TEST_F(ServerTest, ReadsAKeyFile) {
  const Path file = Path(::testing::TempDir()) / "nibble_serve_key";
  ASSERT_TRUE(write_file(file, "  s3cret \r\nnot this\n").ok());
  EXPECT_EQ(*read_api_key(file), "s3cret");
  ASSERT_TRUE(write_file(file, " \n").ok());
  EXPECT_EQ(read_api_key(file).status().code(), Code::invalid_argument);
  std::filesystem::remove(file);
}

std::string mutate(std::string text, Rng& rng) {
  static constexpr std::string_view kPieces[] = {"null", "-1",      "1e999", "[]",         "{}", "\"\"",
                                                 "true", "\\ud800", "{",     "]",          "\"", "9223372036854775808",
                                                 "\xff", "0.5",     ",",     "<tool_call>"};
  for (uint32_t n = 1 + rng.below(4); n > 0 && !text.empty(); --n) {
    const size_t at = rng.below(static_cast<uint32_t>(text.size()));
    switch (rng.below(4)) {
      case 0:
        text[at] = static_cast<char>(rng.below(256));
        break;
      case 1:
        text.erase(at, 1 + rng.below(8));
        break;
      case 2:
        text.insert(at, kPieces[rng.below(std::size(kPieces))]);
        break;
      default: {  // one value in the place of another
        const size_t colon = text.find(':', at), end = text.find_first_of(",}]", colon);
        if (colon == std::string::npos || end == std::string::npos) break;
        text.replace(colon + 1, end - colon - 1, kPieces[rng.below(std::size(kPieces))]);
      }
    }
  }
  return text;
}

// Whatever stands in a body: an answer or an error of the client's, never 500, and the server lives on.
TEST_F(ServerTest, NoBodyIsOurFault) {
  start();
  const std::pair<const char*, std::string> seeds[] = {
      {kChat, chat({{"tools", test_tools()},
                    {"tool_choice", "auto"},
                    {"stop", {"a", "b"}},
                    {"temperature", 0.5},
                    {"max_tokens", 5},
                    {"stream_options", {{"include_usage", true}}},
                    {"chat_template_kwargs", {{"enable_thinking", false}}}})
                  .dump()},
      {kChat,
       R"({"messages":[{"role":"system","content":"s"},{"role":"developer","content":[{"type":"text","text":"x"}]},
          {"role":"user","content":"u"},{"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[{"id":"1",
          "type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"1",
          "content":"42"},{"role":"system","content":"late"}],"model":"tiny-voice"})"},
      {"/v1/completions", R"({"prompt":["a",[1,2]],"max_tokens":3,"stop":["x"],"seed":1})"},
      {"/tokenize", R"({"content":"hello <|im_start|>","add_special_tokens":true})"},
      {"/detokenize", R"({"tokens":[1,2,1556]})"},
      {"/v1/parse",
       R"({"chunks":["<tool_call>\n","{\"name\":\"f\"}"],"tools":[{"type":"function","function":{"name":"f"}}],
          "tool_parser":"auto","thinking_open":false,"finish":"stop"})"},
  };
  Rng rng(2026);
  std::array<int, 600> seen{};
  for (int i = 0; i < 3000; ++i) {
    const auto& [path, seed] = seeds[rng.below(std::size(seeds))];
    const std::string body = mutate(seed, rng);
    const net::HttpResponse response = post(path, body);
    ASSERT_TRUE(response.status == 200 || response.status == 400 || response.status == 404)
        << path << " " << response.status << " " << body << "\n"
        << response.body;
    ++seen[static_cast<size_t>(response.status)];
  }
  EXPECT_GT(seen[200], 100);
  EXPECT_GT(seen[400], 100);
}

}  // namespace
}  // namespace nibble::serve

// For tests of the whole server: a server on loopback over a scripted engine, a client, and a checker of streams that
// every streamed reply goes through.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/http_client.h"
#include "serve/reply.h"
#include "serve/server.h"
#include "tests/support/raw_client.h"
#include "tests/support/scripted_engine.h"

namespace nibble::serve {

inline std::shared_ptr<const text::Tokenizer> tiny_tokenizer() {
  static const auto tokenizer = [] {
    auto loaded = text::Tokenizer::load(NIBBLE_SOURCE_DIR "/models/tiny-voice");
    NIBBLE_CHECK(loaded.ok());
    return std::make_shared<const text::Tokenizer>(*loaded);
  }();
  return tokenizer;
}

inline std::shared_ptr<const text::ChatTemplate> tiny_template() {
  static const auto chat_template = [] {
    auto loaded = text::ChatTemplate::load(NIBBLE_SOURCE_DIR "/models/tiny-voice");
    NIBBLE_CHECK(loaded.ok());
    return std::make_shared<const text::ChatTemplate>(*loaded);
  }();
  return chat_template;
}

/// What a stream adds up to, as a client sums it.
struct StreamSum {
  std::string content, reasoning, finish_reason;
  std::vector<ReplyMessage::Call> calls;
  std::optional<Json> usage;
  std::vector<Json> chunks;
  int pings = 0;
};

/// Splits a stream into its events; every event is one `data:` line, or the ping comment.
inline std::vector<std::string> sse_data(const std::string& body, int* pings = nullptr) {
  std::vector<std::string> data;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "an event without its end";
    if (end == std::string::npos) break;
    const std::string event = body.substr(at, end - at);
    at = end + 2;
    if (event == ": ping") {
      if (pings) ++*pings;
      continue;
    }
    EXPECT_EQ(event.substr(0, 6), "data: ");
    EXPECT_EQ(event.find('\n'), std::string::npos);
    data.push_back(event.substr(6));
  }
  return data;
}

inline void sum_call_delta(const Json& entries, StreamSum& sum) {
  ASSERT_EQ(entries.size(), 1u);
  const Json& entry = entries[0];
  const auto index = entry.at("index").get<size_t>();
  if (entry.contains("id")) {
    EXPECT_EQ(index, sum.calls.size());
    EXPECT_EQ(entry.at("type"), "function");
    EXPECT_EQ(entry.at("function").at("arguments"), "");
    sum.calls.push_back({entry.at("id"), entry.at("function").at("name"), ""});
  } else {
    ASSERT_EQ(index + 1, sum.calls.size());
    EXPECT_FALSE(entry.at("function").contains("name"));
    EXPECT_FALSE(entry.contains("type"));
    sum.calls.back().arguments += entry.at("function").at("arguments").get<std::string>();
  }
}

/// Checks the order and form of a chat stream, chunk by chunk, and sums it.
inline StreamSum check_chat_stream(const std::string& body, bool include_usage) {
  StreamSum sum;
  std::vector<std::string> data = sse_data(body, &sum.pings);
  if (data.empty() || data.back() != "[DONE]") {
    ADD_FAILURE() << "no [DONE]: " << body.substr(body.size() > 300 ? body.size() - 300 : 0);
    return sum;
  }
  data.pop_back();
  bool role_seen = false;
  for (const std::string& text : data) {
    const Json chunk = Json::parse(text);
    EXPECT_FALSE(chunk.contains("error")) << text;
    for (const char* key : {"id", "object", "created", "model", "choices"}) EXPECT_TRUE(chunk.contains(key)) << text;
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    if (!sum.chunks.empty()) {
      for (const char* key : {"id", "created", "model"}) EXPECT_EQ(chunk[key], sum.chunks[0][key]);
    }
    sum.chunks.push_back(chunk);
    if (chunk["choices"].empty()) {
      EXPECT_TRUE(include_usage && !sum.finish_reason.empty() && !sum.usage) << text;
      sum.usage = chunk["usage"];
      EXPECT_TRUE(chunk.contains("timings"));
      continue;
    }
    EXPECT_EQ(chunk.contains("usage"), include_usage) << text;
    EXPECT_TRUE(sum.finish_reason.empty()) << "after the end: " << text;
    const Json& choice = chunk["choices"][0];
    const Json& delta = choice.at("delta");
    EXPECT_EQ(choice.at("index"), 0);
    if (!role_seen) {
      EXPECT_EQ(delta.dump(), R"({"role":"assistant","content":""})");
      EXPECT_EQ(choice.at("finish_reason"), nullptr);
      role_seen = true;
      continue;
    }
    if (!choice.at("finish_reason").is_null()) {
      EXPECT_TRUE(delta.empty()) << text;
      sum.finish_reason = choice["finish_reason"];
      continue;
    }
    EXPECT_EQ(delta.size(), 1u) << text;
    if (delta.contains("content")) sum.content += delta["content"].get<std::string>();
    if (delta.contains("reasoning_content")) sum.reasoning += delta["reasoning_content"].get<std::string>();
    if (delta.contains("tool_calls")) sum_call_delta(delta["tool_calls"], sum);
  }
  EXPECT_FALSE(sum.finish_reason.empty());
  EXPECT_EQ(sum.usage.has_value(), include_usage);
  return sum;
}

class ServerTest : public ::testing::Test {
 protected:
  void start(ServeOptions options = {}) {
    options.port = 0;
    options.model_id = "tiny-voice";
    engine_ = std::make_shared<ScriptedEngine>(tiny_tokenizer());
    auto server = Server::start(std::move(options), engine_, tiny_tokenizer(), tiny_template());
    ASSERT_TRUE(server.ok()) << server.status().text();
    server_ = std::move(*server);
  }

  std::string url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(server_->port()) + path;
  }
  net::HttpResponse post(const std::string& path, const std::string& body, const net::HttpHeaders& headers = {}) {
    net::HttpOptions options;
    options.headers = headers;
    auto response = client_.post(url(path), body, options);
    EXPECT_TRUE(response.ok()) << response.status().text();
    return response.ok() ? *response : net::HttpResponse{};
  }
  net::HttpResponse get(const std::string& path, const net::HttpHeaders& headers = {}) {
    net::HttpOptions options;
    options.headers = headers;
    auto response = client_.get(url(path), options);
    EXPECT_TRUE(response.ok()) << response.status().text();
    return response.ok() ? *response : net::HttpResponse{};
  }
  Json post_ok(const std::string& path, const Json& body) {
    const net::HttpResponse response = post(path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body, nullptr, false);
  }

  /// A chat request with more fields.
  static Json chat(Json fields = Json::object()) {
    Json body = {{"messages", {{{"role", "user"}, {"content", "Hi there"}}}}};
    body.update(fields);
    return body;
  }
  /// Sends a chat request as a stream and checks all of it.
  StreamSum stream_chat(Json fields = Json::object(), bool include_usage = false) {
    fields["stream"] = true;
    if (include_usage) fields["stream_options"] = {{"include_usage", true}};
    const net::HttpResponse response = post("/v1/chat/completions", chat(std::move(fields)).dump());
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_EQ(*response.header("content-type"), "text/event-stream; charset=utf-8");
    return check_chat_stream(response.body, include_usage);
  }

  std::shared_ptr<ScriptedEngine> engine_;
  std::unique_ptr<Server> server_;
  net::HttpClient client_;
};

inline Json test_tools() {
  return Json::parse(R"([
      {"type":"function","function":{"name":"get_weather","description":"Weather","strict":true,
       "parameters":{"type":"object","title":"W","properties":{"city":{"type":"string","title":"City"},
                     "days":{"type":"integer"}},"additionalProperties":false}}},
      {"type":"function","function":{"name":"get_time","parameters":{"type":"object","properties":{}}}}])");
}

}  // namespace nibble::serve

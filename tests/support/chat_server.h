// For tests: an OpenAI-compatible server on loopback whose model is a function of the messages.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "gate/chat_stream.h"
#include "gate/reply.h"
#include "io/json.h"
#include "tests/support/loopback_server.h"

namespace nibble::test {

inline constexpr std::string_view kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

/// The data lines of a streamed reply: the role, reasoning, content in two pieces, calls, finish, usage, [DONE].
inline std::string chat_events(const gate::Reply& reply, const std::string& finish = {}) {
  std::string out;
  const auto chunk = [&](const Json& delta, const Json& finish_reason) {
    const Json json = {{"choices", {{{"index", 0}, {"delta", delta}, {"finish_reason", finish_reason}}}}};
    out += "data: " + gate::dump(json) + "\n\n";
  };
  chunk({{"role", "assistant"}, {"content", ""}}, nullptr);
  if (!reply.reasoning.empty()) chunk({{"reasoning_content", reply.reasoning}}, nullptr);
  size_t middle = reply.content.size() / 2;
  while (middle > 0 && (reply.content[middle] & 0xC0) == 0x80) --middle;
  for (const std::string& piece : {reply.content.substr(0, middle), reply.content.substr(middle)}) {
    if (!piece.empty()) chunk({{"content", piece}}, nullptr);
  }
  for (size_t i = 0; i < reply.calls.size(); ++i) {
    const gate::ToolCall& call = reply.calls[i];
    chunk({{"tool_calls",
            {{{"index", i},
              {"id", call.id},
              {"type", "function"},
              {"function", {{"name", call.name}, {"arguments", ""}}}}}}},
          nullptr);
    chunk({{"tool_calls", {{{"index", i}, {"function", {{"arguments", call.arguments}}}}}}}, nullptr);
  }
  chunk(Json::object(), !finish.empty() ? finish : reply.calls.empty() ? "stop" : "tool_calls");
  out += R"(data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}})"
         "\n\ndata: [DONE]\n\n";
  return out;
}

class ChatServer {
 public:
  using Model = std::function<gate::Reply(const Json& messages)>;

  explicit ChatServer(Model model)
      : model_(std::move(model)), server_([this](const LoopbackRequest& request, LoopbackConnection& connection) {
          if (request.head.find("GET /v1/models ") == 0)
            return connection.reply(200, R"({"data":[{"id":"scripted"}]})");
          const Json body = parse_json(request.body, "request").value();
          connection.send(std::string(kStreamHead) + chat_events(model_(body["messages"])));
          connection.close();
        }) {}

  std::string url() const { return server_.url(); }
  int requests() const { return server_.requests(); }

 private:
  Model model_;
  LoopbackServer server_;
};

}  // namespace nibble::test

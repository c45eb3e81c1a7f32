#include "gate/capabilities.h"

#include <gtest/gtest.h>

#include "gate/chat_stream.h"
#include "tests/support/loopback_server.h"

namespace nibble::gate {
namespace {

using test::LoopbackConnection;
using test::LoopbackRequest;
using test::LoopbackServer;

// A server that refuses some fields of a request and answers the rest.
Capabilities probed(const std::vector<std::string>& refused, const Json& choice) {
  LoopbackServer server([&](const LoopbackRequest& request, LoopbackConnection& connection) {
    const Json body = parse_json(request.body, "request").value();
    for (const std::string& field : refused) {
      if (body.contains(field)) return connection.reply(400, R"({"error": {"message": "unknown field"}})");
    }
    connection.reply(200, dump({{"choices", {choice}}}));
  });
  ChatEndpoint endpoint({.url = server.url(), .api_key = {}, .model = "m", .cancel = {}});
  const auto found = probe(endpoint);
  EXPECT_TRUE(found.ok()) << found.status().text();
  return found.ok() ? *found : Capabilities();
}

TEST(Capabilities, OfAServerThatTakesEverything) {
  const Capabilities found = probed({}, {{"message", {{"content", R"({"a": true})"}, {"reasoning", "hm"}}},
                                         {"logprobs", {{"content", Json::array()}}}});
  EXPECT_EQ(found.tools, true);
  EXPECT_EQ(found.json_schema, true);
  EXPECT_EQ(found.logprobs, true);
  EXPECT_EQ(found.template_kwargs, true);
  EXPECT_EQ(found.reasoning_field, "reasoning");
}

TEST(Capabilities, OfAServerThatRefusesOrIgnoresThem) {
  const Capabilities refused =
      probed({"tools", "response_format", "logprobs", "chat_template_kwargs"}, {{"message", {{"content", "Yes."}}}});
  for (const auto& flag : {refused.tools, refused.json_schema, refused.logprobs, refused.template_kwargs}) {
    EXPECT_EQ(flag, false);
  }
  const Capabilities ignored = probed({}, {{"message", {{"content", "Yes."}}}});
  EXPECT_EQ(ignored.tools, true);
  EXPECT_EQ(ignored.json_schema, false);
  EXPECT_EQ(ignored.logprobs, false);
  EXPECT_EQ(ignored.reasoning_field, "");
}

TEST(Capabilities, NothingIsKnownOfAServerThatFailsOrTalksNonsense) {
  for (const std::string body : {"", "[]", R"({"choices": 3})", R"({"choices": []})"}) {
    LoopbackServer server([&](const LoopbackRequest&, LoopbackConnection& connection) {
      connection.reply(body.empty() ? 503 : 200, body);
    });
    ChatEndpoint endpoint({.url = server.url(), .api_key = {}, .model = "m", .cancel = {}});
    const auto found = probe(endpoint);
    ASSERT_TRUE(found.ok()) << found.status().text();
    for (const auto& flag : {found->tools, found->json_schema, found->logprobs, found->template_kwargs}) {
      EXPECT_EQ(flag, std::nullopt);
    }
    EXPECT_EQ(to_json(*found)["tools"], nullptr);
  }
}

TEST(Capabilities, ACaseNeedsWhatItSends) {
  Case plain, tools, structured;
  tools.tools = {{{"type", "function"}}};
  structured.params["response_format"] = {{"type", "json_object"}};
  Capabilities none;
  none.tools = none.json_schema = false;
  EXPECT_EQ(lacking(plain, none), "");
  EXPECT_EQ(lacking(tools, none), "tools");
  EXPECT_EQ(lacking(structured, none), "json_schema");
  EXPECT_EQ(lacking(tools, Capabilities()), "");
}

}  // namespace
}  // namespace nibble::gate

// Faults that spoken companions showed in the field, each said by a scripted model through the real server, and found
// by exactly the detector that names it (tests/replay/faults.jsonl).
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <set>

#include "gate/chat_stream.h"
#include "gate/play.h"
#include "io/jsonl.h"
#include "tests/support/chat_server.h"
#include "tests/support/replay_server.h"

namespace nibble::gate {
namespace {

// The replies in the order of the requests.
std::string script_of(const Json& fault) {
  std::string script;
  for (size_t i = 0; i < fault["replies"].size(); ++i) {
    const Json& reply = fault["replies"][i];
    Json entry = {{"match", {{"index", i}}}, {"chunks", Json::array()}};
    for (const Json& piece : reply.is_array() ? reply : Json::array({reply}))
      entry["chunks"].push_back({{"text", piece}});
    if (fault.contains("finish")) entry["finish"] = fault["finish"];
    script += dump(entry) + "\n";
  }
  return script;
}

// Streams that the real server does not make: every reply as its events, byte for byte.
std::unique_ptr<test::LoopbackServer> faulty_server(const Json& fault) {
  return std::make_unique<test::LoopbackServer>(
      [&fault, next = size_t{0}](const test::LoopbackRequest&, test::LoopbackConnection& connection) mutable {
        std::string events(test::kStreamHead);
        for (const Json& event : fault["events"][next++]) events += "data: " + dump(event) + "\n\n";
        connection.send(events + "data: [DONE]\n\n");
        connection.close();
      });
}

Case case_of(const Json& fault) {
  Json json = {{"id", fault["fault"]},
               {"why", "w"},
               {"system", "Be kind to everybody who asks you about the weather today."},
               {"params", {{"chat_template_kwargs", {{"enable_thinking", false}}}}},
               {"mocks", {{{"tool", "search_memory"}, {"result", {{"results", Json::array()}}}}}}};
  if (fault.contains("tools")) {
    json["tools"] = parse_json(R"([{"type": "function", "function": {"name": "search_memory", "parameters":
        {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}}])",
                               "tools")
                        .value();
  }
  for (const Json& user : fault["user"]) json["turns"].push_back({{"user", user}});
  if (fault.contains("expect")) json["turns"].back()["expect"] = fault["expect"];
  auto one = parse_case(json, "fault");
  EXPECT_TRUE(one.ok()) << one.status().text();
  return std::move(one).value();
}

TEST(GateFaults, EachIsFoundByTheDetectorThatNamesIt) {
  Recipe recipe;
  recipe.persona = {{"user", "Rajesh"}};
  const auto detectors = Detectors::make(recipe, true, false);
  ASSERT_TRUE(detectors.ok()) << detectors.status().text();
  int faults = 0;
  const Status status = for_each_json_line(NIBBLE_SOURCE_DIR "/tests/replay/faults.jsonl", [&](Json& fault, int64_t) {
    SCOPED_TRACE(fault["fault"].get<std::string>());
    ++faults;
    std::optional<test::ReplayServer> server;
    std::unique_ptr<test::LoopbackServer> faulty;
    EndpointOptions options;
    if (fault.contains("events")) {
      faulty = faulty_server(fault);
      options.url = faulty->url();
    } else {
      options.url = server.emplace(script_of(fault)).url();
    }
    options.model = "replay";
    ChatEndpoint endpoint(options);
    const auto record = play_case(endpoint, case_of(fault), *detectors, {.play_on = true}, 1);
    EXPECT_TRUE(record.ok()) << record.status().text();
    if (!record.ok()) return Status();
    EXPECT_EQ(record->error, "");
    std::set<std::string> found, warned;
    std::vector<std::string> said;
    for (const PlayedTurn& turn : record->turns) {
      for (const Failure& failure : turn.failures) found.insert(failure.what);
      for (const Anomaly& anomaly : turn.anomalies) (anomaly.warning ? warned : found).insert(anomaly.family());
      for (const PlayedMessage& message : turn.messages) {
        said.push_back(message.said.reply.content);
        for (const Anomaly& anomaly : message.anomalies) (anomaly.warning ? warned : found).insert(anomaly.family());
      }
    }
    EXPECT_EQ(Json(found), fault["finds"]) << dump(to_json(*record));
    EXPECT_EQ(Json(warned), fault.value("warns", Json::array())) << dump(to_json(*record));
    EXPECT_EQ(Json(said), fault.value("said", Json(said)));
    return Status();
  });
  EXPECT_TRUE(status.ok()) << status.text();
  EXPECT_EQ(faults, 27);
}

}  // namespace
}  // namespace nibble::gate

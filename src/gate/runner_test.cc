#include "gate/runner.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "tests/support/loopback_server.h"

namespace nibble::gate {
namespace {

using test::LoopbackConnection;
using test::LoopbackRequest;
using test::LoopbackServer;

const char* const kSmallWorld = NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl";

// What a scripted model sees of a request: which turn of which case it is in, and how many results it was given.
struct Moment {
  const Case* one;
  size_t turn, results;
  const Turn& now() const { return one->turns[turn]; }
};

using Model = std::function<Reply(const Moment&)>;

// Knows all answers: the calls that the case expects, then the words it must hear.
Reply perfect(const Moment& at) {
  const Turn& turn = at.now();
  std::string words;
  if (at.results < turn.tool_results.size()) {
    for (const std::string& argument : turn.expect.args) words += argument + " ";
    return {.calls = {{"call_1", turn.expect.tool, "{\"x\": \"" + words + "\"}"}}};
  }
  for (const std::string& piece : turn.expect.must) words += piece + " ";
  return {.content = words};
}

// A server whose model is a function. It finds the case by its system and first user message, which are unique
// together.
class ScriptedServer {
 public:
  explicit ScriptedServer(Model model)
      : cases_(read_cases(kSmallWorld).value()),
        model_(std::move(model)),
        server_([this](auto& request, auto& connection) { answer(request, connection); }) {}

  GateOptions options(size_t limit = 0) const {
    GateOptions options;
    options.endpoint.url = server_.url();
    options.endpoint.first_backoff_s = 0.001;
    options.cases = kSmallWorld;
    options.limit = limit;
    return options;
  }
  const std::vector<Case>& cases() const { return cases_; }

 private:
  void answer(const LoopbackRequest& request, LoopbackConnection& connection) {
    if (request.head.find("GET /v1/models ") == 0) return connection.reply(200, R"({"data":[{"id":"scripted"}]})");
    const Json body = parse_json(request.body, "request").value();
    const auto moment = locate(body["messages"]);
    const Json reply = {{"choices", {{{"message", assistant_message(model_(moment))}}}}};
    connection.reply(200, reply.dump());
  }

  Moment locate(const Json& messages) const {
    Moment at{nullptr, 0, 0};
    for (const Case& one : cases_) {
      if (one.system == messages[0]["content"] && one.turns[0].user == messages[1]["content"]) at.one = &one;
    }
    NIBBLE_CHECK(at.one != nullptr);
    for (size_t i = 2; i < messages.size(); ++i) {
      if (messages[i]["role"] == "tool") {
        EXPECT_EQ(messages[i]["content"], at.now().tool_results[at.results]);
        EXPECT_EQ(messages[i]["tool_call_id"], messages[i - 1]["tool_calls"][0]["id"]);
        ++at.results;
      } else if (messages[i]["role"] == "user") {
        ++at.turn;
        at.results = 0;
        EXPECT_EQ(messages[i]["content"], at.now().user);
      }
    }
    return at;
  }

  const std::vector<Case> cases_;
  const Model model_;
  LoopbackServer server_;
};

GateReport run(const ScriptedServer& server, size_t limit = 0) {
  auto report = run_gate(server.options(limit));
  EXPECT_TRUE(report.ok()) << report.status().text();
  return std::move(report).value();
}

TEST(RunGate, APerfectModelPassesAllCases) {
  ScriptedServer server(perfect);
  const GateReport report = run(server);
  EXPECT_EQ(report.model, "scripted");
  EXPECT_EQ(report.thinking, "off");
  const Tally all = report.overall();
  EXPECT_EQ(all.cases, 400);
  EXPECT_EQ(all.passed, 400) << to_text(report);
  EXPECT_EQ(all.with_manners, 400);
}

// Each mutant breaks one thing in some turns, and exactly the cases with such a turn fail.
struct Mutant {
  const char* what;
  std::function<bool(const Turn&)> broken;
  std::function<Reply(const Moment&)> reply;
};

TEST(RunGate, MutantsFailExactlyTheirCases) {
  const auto calls = [](const Turn& turn) { return !turn.tool_results.empty(); };
  const auto talks = [](const Turn& turn) { return turn.tool_results.empty(); };
  const std::vector<Mutant> mutants = {
      {"never calls", calls, [](const Moment&) { return Reply{.content = "Shall I search?"}; }},
      {"wrong tool", calls,
       [](const Moment& at) {
         Reply reply = perfect(at);
         for (ToolCall& call : reply.calls) call.name = "other";
         return reply;
       }},
      {"empty arguments", calls,
       [](const Moment& at) {
         Reply reply = perfect(at);
         for (ToolCall& call : reply.calls) call.arguments = "{}";
         return reply;
       }},
      {"calls without end", calls,
       [](Moment at) {
         at.results = 0;
         return perfect(at);
       }},
      {"says something else", talks, [](const Moment&) { return Reply{.content = "Hm."}; }},
      {"calls in small talk", talks,
       [](const Moment&) {
         return Reply{.calls = {{"1", "web_search", "{}"}}};
       }},
  };
  for (const Mutant& mutant : mutants) {
    ScriptedServer server([&](const Moment& at) { return mutant.broken(at.now()) ? mutant.reply(at) : perfect(at); });
    const GateReport report = run(server, 120);
    ASSERT_EQ(report.results.size(), 120u);
    for (size_t i = 0; i < report.results.size(); ++i) {
      const auto& turns = server.cases()[i].turns;
      const bool broken = std::any_of(turns.begin(), turns.end(), mutant.broken);
      EXPECT_EQ(report.results[i].passed, !broken) << mutant.what << ", case " << i;
      EXPECT_EQ(report.results[i].reason.empty(), !broken);
      EXPECT_EQ(report.results[i].transcript.empty(), !broken);
    }
  }
}

TEST(RunGate, MannersAreColumnsBesideThePassRate) {
  ScriptedServer server([](const Moment& at) {
    Reply reply = perfect(at);
    if (reply.calls.empty()) reply.content = "**Answer** " + reply.content + ". Want me to look further?";
    reply.reasoning = "I see.";
    return reply;
  });
  const Tally all = run(server, 20).overall();
  EXPECT_EQ(all.passed, 20);
  EXPECT_EQ(all.with_manners, 0);
  EXPECT_EQ(all.thinks, 20);
  EXPECT_EQ(all.markdown, 20);
  EXPECT_EQ(all.asks, 20);
}

TEST(RunGate, JobsDoNotChangeTheReport) {
  ScriptedServer server(
      [](const Moment& at) { return at.now().user.size() % 3 == 0 ? Reply{.content = "Hm."} : perfect(at); });
  GateOptions options = server.options(60);
  Json one = to_json(run_gate(options).value());
  options.jobs = 4;
  uint64_t last = 0;
  Json four = to_json(run_gate(options, [&](const ProgressUpdate& update) {
                        EXPECT_EQ(update.done, ++last);
                        EXPECT_EQ(update.total, 60u);
                      }).value());
  EXPECT_EQ(last, 60u);
  one["run"].erase("seconds");
  four["run"].erase("seconds");
  EXPECT_EQ(one, four);
  EXPECT_GT(one["failures"].size(), 0u);
}

TEST(RunGate, AReplyThatBreaksOffIsAFailureOfItsCase) {
  LoopbackServer server([](const LoopbackRequest&, LoopbackConnection& connection) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    connection.close();
  });
  GateOptions options;
  options.endpoint.url = server.url();
  options.endpoint.model = "m";
  options.cases = kSmallWorld;
  options.limit = 3;
  const auto report = run_gate(options);
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_EQ(report->overall().cases, 3);
  EXPECT_EQ(report->overall().passed, 0);
  EXPECT_EQ(server.requests(), 3);
}

TEST(RunGate, WithoutAServerOrWithARefusingOneThereIsNoReport) {
  GateOptions options;
  options.cases = kSmallWorld;
  options.endpoint.first_backoff_s = 0.001;
  options.endpoint.url = LoopbackServer([](const LoopbackRequest&, LoopbackConnection&) {}).url();
  EXPECT_EQ(run_gate(options).status().code(), Code::unavailable);
  LoopbackServer refusing([](const LoopbackRequest&, LoopbackConnection& connection) { connection.reply(401, "{}"); });
  options.endpoint.url = refusing.url();
  options.endpoint.model = "m";
  options.jobs = 3;
  EXPECT_EQ(run_gate(options).status().code(), Code::invalid_argument);
  options.cases = "no-such-file";
  EXPECT_EQ(run_gate(options).status().code(), Code::not_found);
}

TEST(RunGate, CancelStopsTheRun) {
  GateOptions options;
  ScriptedServer server([&](const Moment& at) {
    options.endpoint.cancel.cancel();
    return perfect(at);
  });
  const CancelToken cancel = options.endpoint.cancel;
  options = server.options(50);
  options.endpoint.cancel = cancel;
  EXPECT_EQ(run_gate(options).status().code(), Code::cancelled);
}

}  // namespace
}  // namespace nibble::gate

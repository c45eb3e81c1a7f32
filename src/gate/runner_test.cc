#include "gate/runner.h"

#include <gtest/gtest.h>

#include <set>

#include "base/sha256.h"
#include "gate/mocks.h"
#include "tests/support/chat_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

const char* const kSmallWorld = NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl";

// What a scripted model sees of a request: which turn of which case it is in, and how many results it was given.
struct Moment {
  const Case* one;
  size_t turn, results;
  const Turn& now() const { return one->turns[turn]; }
  const CallSteps& steps() const { return *now().expect.steps; }
};

using Model = std::function<Reply(const Moment&)>;

// Knows all answers: the calls that the case expects, then the words it must hear.
Reply perfect(const Moment& at) {
  std::string words;
  if (at.results < at.steps().count) {
    for (const std::string& word : at.steps().words) words += word + " ";
    return {.calls = {{"call_1", at.steps().tool, fmt::format(R"({{"x": "{}{}"}})", words, at.results)}}};
  }
  for (const TextPattern& piece : at.now().expect.must) words += piece.text + " ";
  return {.content = fmt::format("{}{}", words, at.turn)};
}

// A server whose model is a function. It finds the case by its system and first user message, which are unique
// together.
class ScriptedServer {
 public:
  explicit ScriptedServer(Model model, size_t limit = 400)
      : model_(std::move(model)), server_([this](const Json& messages) { return model_(locate(messages)); }) {
    recipe_.name = "small_world";
    recipe_.cases = read_cases(kSmallWorld).value();
    recipe_.cases.resize(std::min(limit, recipe_.cases.size()));
    std::set<std::string> categories;
    for (const Case& one : recipe_.cases) {
      if (categories.insert(one.category).second) recipe_.gates.push_back({.id = one.category, .threshold = 0.9});
    }
    recipe_.gates.push_back({.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0});
  }

  Side side() const {
    Side side;
    side.endpoint.url = server_.url();
    side.endpoint.model = "scripted";
    side.endpoint.first_backoff_s = 0.001;
    return side;
  }
  const Recipe& recipe() const { return recipe_; }
  const std::vector<Case>& cases() const { return recipe_.cases; }
  int requests() const { return server_.requests(); }

 private:
  Moment locate(const Json& messages) const {
    Moment at{nullptr, 0, 0};
    for (const Case& one : recipe_.cases) {
      if (one.system == messages[0]["content"] && one.turns[0].user == messages[1]["content"]) at.one = &one;
    }
    NIBBLE_CHECK(at.one != nullptr);
    for (size_t i = 2; i < messages.size(); ++i) {
      if (messages[i]["role"] == "tool") {
        if (messages[i]["content"] != MockTools::kNotFound) {
          EXPECT_EQ(messages[i]["content"], at.now().mocks.at(at.results).result);
        }
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

  Recipe recipe_;
  Model model_;
  test::ChatServer server_;
};

struct Played {
  Records records;
  Report report;
};

Played run(const ScriptedServer& server, const Side& side, const RunOptions& options = {}) {
  auto records = play_recipe(server.recipe(), side, options);
  EXPECT_TRUE(records.ok()) << records.status().text();
  auto report = report_of(server.recipe(), *records, {.repeats = options.repeats});
  EXPECT_TRUE(report.ok()) << report.status().text();
  return {std::move(records).value(), std::move(report).value()};
}
Played run(const ScriptedServer& server) {
  return run(server, server.side());
}

bool passed(const Played& played, const Case& one) {
  const auto record = played.records.get(one.id, 1);
  EXPECT_TRUE(record.ok()) << record.status().text();
  return record->passed();
}

TEST(Gate, APerfectModelPassesAllCases) {
  ScriptedServer server(perfect);
  const Report report = run(server).report;
  EXPECT_EQ(report.overall.cases, 400);
  EXPECT_EQ(report.overall.passed, 400) << to_text(report);
  EXPECT_EQ(report.overall.with_manners, 400) << to_text(report);
  for (const GateResult& gate : report.gates) EXPECT_EQ(gate.verdict, Verdict::pass) << gate.gate.id;
  EXPECT_EQ(report.exit_code(), 0);
}

// Each mutant breaks one thing in some turns, and exactly the cases with such a turn fail.
struct Mutant {
  const char* what;
  std::function<bool(const Turn&)> broken;
  std::function<Reply(const Moment&)> reply;
};

TEST(Gate, MutantsFailExactlyTheirCases) {
  const auto calls = [](const Turn& turn) { return turn.expect.steps->count > 0; };
  const auto talks = [](const Turn& turn) { return turn.expect.steps->count == 0; };
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
    ScriptedServer server([&](const Moment& at) { return mutant.broken(at.now()) ? mutant.reply(at) : perfect(at); },
                          120);
    const Played played = run(server);
    int64_t right = 0;
    for (const Case& one : server.cases()) {
      const bool broken = std::any_of(one.turns.begin(), one.turns.end(), mutant.broken);
      EXPECT_EQ(passed(played, one), !broken) << mutant.what << ", case " << one.id;
      right += !broken;
    }
    EXPECT_EQ(played.report.overall.passed, right);
    EXPECT_EQ(played.report.exit_code(), 1) << mutant.what;
  }
}

TEST(Gate, MannersAreColumnsBesideThePassRate) {
  ScriptedServer server(
      [](const Moment& at) {
        Reply reply = perfect(at);
        if (reply.calls.empty()) reply.content = "**Answer** " + reply.content + ". Want me to look further?";
        reply.reasoning = "<think>";
        return reply;
      },
      20);
  const Report report = run(server).report;
  EXPECT_EQ(report.overall.passed, 20);
  EXPECT_EQ(report.overall.with_manners, 0);
  EXPECT_EQ(report.overall.markdown, 20);
  EXPECT_EQ(report.overall.asks, 20);
  const GateResult& markdown = report.gates.back();
  EXPECT_EQ(markdown.gate.id, "markdown_leak");
  EXPECT_EQ(markdown.verdict, Verdict::fail);
  EXPECT_EQ(markdown.failures.size(), 20u);
  EXPECT_EQ(report.exit_code(), 1);
}

// Texts of a report without what depends on the clock.
Json timeless(Json json) {
  for (const char* key : {"latency", "run"}) json.erase(key);
  return json;
}

TEST(Gate, JobsDoNotChangeTheReport) {
  ScriptedServer server(
      [](const Moment& at) { return at.now().user.size() % 3 == 0 ? Reply{.content = "Hm."} : perfect(at); }, 60);
  const Json one = timeless(to_json(run(server).report));
  uint64_t last = 0;
  const auto records = play_recipe(server.recipe(), server.side(), {.jobs = 8}, [&](const ProgressUpdate& update) {
    EXPECT_EQ(update.done, ++last);
    EXPECT_EQ(update.total, 60u);
  });
  ASSERT_TRUE(records.ok());
  EXPECT_EQ(last, 60u);
  EXPECT_EQ(timeless(to_json(report_of(server.recipe(), *records, {}).value())), one);
  EXPECT_GT(one["overall"]["passed"], 0);
  EXPECT_LT(one["overall"]["passed"], 60);
}

// After a stop at any moment the rest is played, nothing twice, and the report is that of a run without a stop.
TEST(Gate, ResumesWhereItWasStopped) {
  ScriptedServer server(
      [](const Moment& at) { return at.now().user.size() % 3 == 0 ? Reply{.content = "Hm."} : perfect(at); }, 40);
  const test::TemporaryFolder folder;
  Side side = server.side();
  const Json whole = timeless(to_json(run(server, side).report));
  side.log = folder / "run.jsonl";
  RunOptions options{.resume = true};
  for (const uint64_t stop : {1, 2, 17, 39}) {
    side.endpoint.cancel = CancelToken();
    const auto stopped = play_recipe(server.recipe(), side, options, [&](const ProgressUpdate& update) {
      if (update.done == stop) side.endpoint.cancel.cancel();
    });
    EXPECT_EQ(stopped.status().code(), Code::cancelled);
  }
  side.endpoint.cancel = CancelToken();
  const int before = server.requests();
  EXPECT_EQ(timeless(to_json(run(server, side, options).report)), whole);
  EXPECT_LE(server.requests() - before, 5);  // of one case
  EXPECT_EQ(timeless(to_json(run(server, side, options).report)), whole);
  options.resume = false;
  EXPECT_EQ(play_recipe(server.recipe(), side, options).status().code(), Code::invalid_argument);
  options.resume = true;
  side.play.seed = 7;
  EXPECT_EQ(play_recipe(server.recipe(), side, options).status().code(), Code::invalid_argument);
}

TEST(Gate, ALogHoldsNoSecretAndOnRequestNoText) {
  ScriptedServer server(
      [](const Moment& at) {
        Reply reply = perfect(at);
        if (reply.calls.empty()) reply.content += "hunter2hunter2 sk-abcdefghijklmnopqrstuvwx";
        return reply;
      },
      5);
  const test::TemporaryFolder folder;
  Side side = server.side();
  side.endpoint.api_key = "hunter2hunter2";
  side.log = folder / "run.jsonl";
  run(server, side);
  const std::string log = read_file(side.log).value();
  EXPECT_EQ(log.find("hunter2"), std::string::npos);
  EXPECT_EQ(log.find("sk-abc"), std::string::npos);
  EXPECT_NE(log.find("[key] [key]"), std::string::npos);
  side.log = folder / "hashes.jsonl";
  run(server, side, {.no_content = true});
  const std::string hashes = read_file(side.log).value();
  EXPECT_NE(hashes.find("sha256:"), std::string::npos);
  EXPECT_EQ(hashes.find(server.cases()[0].turns[0].user), std::string::npos);
}

TEST(Gate, AReplyThatBreaksOffIsAFailureOfItsCase) {
  test::LoopbackServer broken([](const test::LoopbackRequest&, test::LoopbackConnection& connection) {
    connection.send(std::string(test::kStreamHead) + "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n");
    connection.close();
  });
  ScriptedServer server(perfect, 3);
  Side side = server.side();
  side.endpoint.url = broken.url();
  const Report report = run(server, side).report;
  EXPECT_EQ(report.overall.cases, 3);
  EXPECT_EQ(report.overall.passed, 0);
  EXPECT_EQ(report.errors, 0);
  EXPECT_EQ(report.exit_code(), 1);
  EXPECT_EQ(broken.requests(), 3);
}

// What the server did not answer is a failure in its gate, and of the run.
TEST(Gate, AServerThatDoesNotAnswerIsAnErrorOfTheRun) {
  ScriptedServer server(perfect, 5);
  Side side = server.side();
  side.endpoint.retries = 1;
  side.endpoint.url = test::LoopbackServer([](const auto&, auto&) {}).url();
  const Report report = run(server, side).report;
  EXPECT_EQ(report.errors, 5);
  EXPECT_EQ(report.overall.cases, 5);
  EXPECT_EQ(report.overall.passed, 0);
  EXPECT_EQ(report.exit_code(), 2);
  test::LoopbackServer refusing([](const auto&, auto& connection) { connection.reply(401, "{}"); });
  side.endpoint.url = refusing.url();
  EXPECT_EQ(run(server, side).report.exit_code(), 2);
  EXPECT_EQ(refusing.requests(), 5);
}

// Headers, and then nothing: the time that a first token may take ends the wait, and no answer is an error.
TEST(Gate, AStallAfterTheHeadersIsAnErrorOfTheRun) {
  ScriptedServer server(perfect, 3);
  test::LoopbackServer silent([](const auto&, test::LoopbackConnection& connection) {
    connection.send(test::kStreamHead);
    connection.wait_for_client();
  });
  Side side = server.side();
  side.endpoint.retries = 1;
  side.endpoint.first_token_s = side.endpoint.idle_s = 0.1;
  side.endpoint.url = silent.url();
  const Report report = run(server, side).report;
  EXPECT_EQ(report.errors, 3);
  EXPECT_EQ(report.retries, 3);
  EXPECT_EQ(report.anomalies, (std::map<std::string, int64_t>{{"http", 3}}));
  EXPECT_EQ(report.overall.cases, 3);
  EXPECT_EQ(report.overall.passed, 0);
  EXPECT_EQ(report.exit_code(), 2);
}

TEST(Gate, StopsAfterManyErrorsInARow) {
  ScriptedServer server(perfect, 60);
  Side side = server.side();
  side.endpoint.retries = 0;
  test::LoopbackServer refusing([](const auto&, auto& connection) { connection.reply(503, "{}"); });
  side.endpoint.url = refusing.url();
  EXPECT_EQ(play_recipe(server.recipe(), side, {}).status().code(), Code::unavailable);
  EXPECT_EQ(refusing.requests(), kErrorsInARow);
}

TEST(Gate, AFullDiskEndsTheRun) {
  ScriptedServer server(perfect, 5);
  const test::TemporaryFolder folder;
  Side side = server.side();
  side.log = folder / "run.jsonl";
  inject_file_faults([&, writes = 0](std::string_view operation, const Path&) mutable {
    return operation == "write" && ++writes > 2 ? io("write: no space") : Status();
  });
  EXPECT_EQ(play_recipe(server.recipe(), side, {}).status().code(), Code::io);
  inject_file_faults({});
}

// Three shards, put together, are the run that plays everything.
TEST(Gate, ShardsMergeIntoTheWholeRun) {
  ScriptedServer server(perfect, 50);
  const test::TemporaryFolder folder;
  std::vector<Path> logs;
  size_t played = 0;
  for (int shard = 1; shard <= 3; ++shard) {
    Side side = server.side();
    side.log = logs.emplace_back(folder / fmt::format("shard{}.jsonl", shard));
    played += play_recipe(server.recipe(), side, {.jobs = 2, .shard = shard, .shards = 3}).value().size();
  }
  EXPECT_EQ(played, 50u);
  const auto merged = merge_logs(server.recipe(), logs, folder / "run.jsonl");
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  EXPECT_EQ(merged->header["model"], "scripted");
  Recipe one = server.recipe();
  EXPECT_EQ(merged->header["prompt_hash"], prompt_hash(one, {}));
  one.cases.resize(1);
  EXPECT_EQ(prompt_hash(one, {}), sha256_of(one.cases[0].system));
  EXPECT_EQ(prompt_hash(one, {.hardening = "Be kind."}), sha256_of(one.cases[0].system + "\n\nBe kind."));
  const auto timeless = [&](const Records& records) {
    Json json = to_json(report_of(server.recipe(), records, {}).value());
    json.erase("latency");
    return json;
  };
  EXPECT_EQ(timeless(merged->records), timeless(run(server).records));

  // Two shards leave cases unplayed; the same twice, another recipe, and a file that is there are refused.
  const auto two = merge_logs(server.recipe(), std::span(logs).first(2), folder / "two.jsonl");
  EXPECT_EQ(report_of(server.recipe(), two->records, {})->missing, 16);
  const std::vector<Path> twice = {logs[0], logs[1], logs[0]};
  EXPECT_EQ(merge_logs(server.recipe(), twice, folder / "x").status().code(), Code::invalid_argument);
  Recipe other = server.recipe();
  other.hash = "other";
  EXPECT_EQ(merge_logs(other, logs, folder / "x").status().code(), Code::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
  EXPECT_EQ(merge_logs(server.recipe(), logs, folder / "run.jsonl").status().code(), Code::invalid_argument);
}

// What a server lacks is neither passed nor failed.
TEST(Gate, ACaseThatTheServerCannotPlayIsNotJudged) {
  ScriptedServer server(perfect, 60);
  Recipe recipe = server.recipe();
  std::set<std::string> lacking;
  for (size_t i = 0; i < recipe.cases.size(); ++i) {
    if (i < 20) {
      recipe.cases[i].tools = Json::array();
    } else {
      lacking.insert(recipe.cases[i].category);
    }
  }
  Side side = server.side();
  side.capabilities.tools = false;
  const Report report = report_of(recipe, play_recipe(recipe, side, {}).value(), {}).value();
  EXPECT_EQ(report.lacking.at("tools"), 40);
  EXPECT_EQ(report.overall.cases, 20);
  EXPECT_EQ(report.overall.passed, report.overall.cases);
  EXPECT_EQ(report.exit_code(), 0) << to_text(report);
  for (const GateResult& gate : report.gates) {
    if (!lacking.contains(gate.gate.id)) continue;
    EXPECT_EQ(gate.verdict, Verdict::not_judged) << gate.gate.id;
    EXPECT_EQ(gate.why, "the server lacks tools");
  }
}

}  // namespace
}  // namespace nibble::gate

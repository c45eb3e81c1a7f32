// The bundled recipe against a scripted model: one that is right in everything, and eleven that each break one thing.
#include <gtest/gtest.h>

#include <optional>

#include "gate/recipe.h"
#include "gate/runner.h"
#include "tests/support/good_script.h"
#include "tests/support/replay_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

using Messages = test::GoodScript::Messages;

// A model that is right, but for the cases of one gate, in which `change` breaks something.
struct Mutant {
  const char* gate;
  test::GoodScript::Change change;
};

Side side_of(const test::ReplayServer& server) {
  Side side;
  side.endpoint.url = server.url("");
  side.endpoint.model = "replay";
  side.server = {{"owned_by", "nibble"}};
  return side;
}

Report play(const Recipe& recipe, const test::GoodScript& script, const ReportOptions& options = {}) {
  const test::ReplayServer server(script.text());
  auto records = play_recipe(recipe, side_of(server), {.jobs = 8});
  EXPECT_TRUE(records.ok()) << records.status().text();
  auto report = report_of(recipe, *records, options);
  EXPECT_TRUE(report.ok()) << report.status().text();
  return std::move(report).value();
}

Report play(const Recipe& recipe, const Mutant& mutant) {
  return play(recipe, test::GoodScript::of(recipe, mutant.gate, mutant.change));
}

const Recipe& companion() {
  static const Recipe recipe = load_recipe("companion").value();
  return recipe;
}

void expect_only_failure(const Report& report, const std::string& gate) {
  for (const GateResult& result : report.gates) {
    if (result.verdict == Verdict::not_judged) continue;
    const bool fails = result.verdict != Verdict::pass;
    EXPECT_EQ(fails, result.gate.id == gate) << to_text(report);
  }
  EXPECT_EQ(report.exit_code(), gate.empty() ? 0 : 1);
  EXPECT_EQ(report.errors, 0);
}

TEST(GateReplay, ThePerfectModelPassesEverything) {
  const Report report = play(companion(), {"none", {}});
  expect_only_failure(report, "");
  EXPECT_EQ(report.overall.passed, report.overall.cases) << to_text(report);
  EXPECT_EQ(report.overall.with_manners, report.overall.cases) << to_text(report);
}

std::string& last_text(Messages& messages) {
  return messages.back().text;
}

void replace_all(Messages& messages, std::string text) {
  messages = {GoodMessage{.text = std::move(text), .calls = {}}};
}

TEST(GateReplay, EveryMutantFailsExactlyItsGate) {
  const std::vector<Mutant> mutants = {
      {"thinking_leak", [](const Case&, size_t,
                           Messages& m) { last_text(m) = "Okay, so the user is asking about this. " + last_text(m); }},
      {"markdown_leak", [](const Case&, size_t, Messages& m) { last_text(m) = "**Well.** " + last_text(m); }},
      {"tool_calling",
       [](const Case&, size_t, Messages& m) {
         for (GoodMessage& message : m) {
           for (auto& [name, arguments] : message.calls) {
             name = name == "save_note" ? "set_timer" : "save_note";
             arguments = name == "save_note" ? Json{{"text", "something"}} : Json{{"minutes", 3}};
           }
         }
       }},
      {"factual", [](const Case&, size_t, Messages& m) { replace_all(m, "That would be a purple hippopotamus."); }},
      {"reasoning", [](const Case&, size_t, Messages& m) { replace_all(m, "The result is 987654."); }},
      {"topic_switch",
       [](const Case& one, size_t turn, Messages& m) {
         if (turn > 0) m = one.turns[turn - 1].good;
         for (GoodMessage& message : m) message.calls.clear();
       }},
      {"direct_action", [](const Case&, size_t, Messages& m) { replace_all(m, "Shall I do that now?"); }},
      {"concise",
       [](const Case&, size_t, Messages& m) {
         last_text(m) += " There is more to say. It goes on for long. It never seems to end. Such is life.";
       }},
      {"honest_memory",
       [](const Case&, size_t, Messages& m) { replace_all(m, "It was moved to Friday the 14th, at Hotel Plaza."); }},
      {"correct_name", [](const Case&, size_t, Messages& m) { replace_all(m, "Hello, Vikram."); }},
      {"bangalore_context", [](const Case&, size_t, Messages& m) { replace_all(m, "Nothing comes to mind."); }},
  };
  for (const Mutant& mutant : mutants) {
    SCOPED_TRACE(mutant.gate);
    expect_only_failure(play(companion(), mutant), mutant.gate);
  }
}

// The talk of 20 turns against a server that is quick, and one that takes its time from turn 16 on.
TEST(GateReplay, ASlowServerFailsTheLatencyGatesOnlyWhereTheyAreJudged) {
  Recipe recipe = companion();
  std::erase_if(recipe.cases, [](const Case& one) { return one.turns.size() < 20; });
  ASSERT_FALSE(recipe.cases.empty());
  const auto quick = [](size_t) -> int64_t { return 60; };
  const auto slow = [](size_t turn) -> int64_t { return turn < 15 ? 60 : 600; };
  for (const bool is_slow : {false, true}) {
    for (const bool judged : {false, true}) {
      const test::GoodScript script =
          is_slow ? test::GoodScript::of(recipe, {}, {}, slow) : test::GoodScript::of(recipe, {}, {}, quick);
      const Report report = play(recipe, script, {.judge_latency = judged});
      EXPECT_EQ(report.overall.passed, report.overall.cases);
      for (const GateResult& result : report.gates) {
        if (result.gate.id != "ttft" && result.gate.id != "ttft_growth") continue;
        EXPECT_EQ(result.verdict, !judged   ? Verdict::not_judged
                                  : is_slow ? Verdict::fail
                                            : Verdict::pass)
            << to_text(report);
      }
    }
  }
}

// A server that goes away in the middle of a run, and the same run when it is back.
TEST(GateReplay, AServerThatDiesMidRunIsAnErrorOfTheRun) {
  const test::TemporaryFolder folder;
  Recipe recipe = companion();
  recipe.cases.resize(12);
  const std::string script = test::GoodScript::of(recipe).text();
  std::optional<test::ReplayServer> server(script);
  Side side = side_of(*server);
  side.endpoint.retries = 0;
  side.log = folder / "run.jsonl";
  {
    const auto dies = play_recipe(recipe, side, {}, [&](const ProgressUpdate& update) {
      if (update.done == 5) server.reset();
    });
    ASSERT_TRUE(dies.ok()) << dies.status().text();
    const Report broken = report_of(recipe, *dies, {}).value();
    EXPECT_EQ(broken.errors, 7);
    EXPECT_EQ(broken.overall.cases, 12);
    EXPECT_EQ(broken.overall.passed, 5);
    EXPECT_EQ(broken.exit_code(), 2);
  }
  server.emplace(script);
  side.endpoint.url = server->url("");
  const Report whole = report_of(recipe, play_recipe(recipe, side, {.resume = true}).value(), {}).value();
  EXPECT_EQ(whole.errors, 0);
  EXPECT_EQ(whole.overall.passed, 12);
}

}  // namespace
}  // namespace nibble::gate

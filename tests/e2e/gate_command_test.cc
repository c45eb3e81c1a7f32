// nibble gate, converse and runs, as a user runs them against a server that is right, or wrong in one thing.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>

#include "base/clock.h"
#include "gate/chat_stream.h"
#include "gate/recipe.h"
#include "tests/support/command.h"
#include "tests/support/good_script.h"
#include "tests/support/replay_server.h"

namespace nibble::test {
namespace {

const gate::Recipe& companion() {
  static const gate::Recipe recipe = gate::load_recipe("companion").value();
  return recipe;
}

// Four sentences more wherever a case asks for few.
void ramble(const gate::Case&, size_t, GoodScript::Messages& messages) {
  messages.back().text += " There is more to say. It goes on for long. It never seems to end. Such is life.";
}

const std::string& right() {
  static const std::string script = GoodScript::of(companion()).text("Yes.");
  return script;
}
const std::string& wordy() {
  static const std::string script = GoodScript::of(companion(), "concise", ramble).text("Yes.");
  return script;
}

std::vector<std::string> words(std::vector<std::string> first, const std::vector<std::string>& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}
std::vector<std::string> gate_of(const ReplayServer& server, const std::vector<std::string>& flags) {
  return words({"gate", "--endpoint", server.url()}, flags);
}

Json json_of(const Path& file) {
  return parse_json(read_file(file).value(), file.string(), {.max_keys = 1 << 20}).value();
}

// A recipe of two behaviours, of which no number of failures fails a run.
std::string two_behaviours(const Scratch& dir) {
  Json gates = Json::array();
  for (const gate::Gate& gate : companion().gates) {
    const bool kept = gate.id == "concise" || gate.id == "factual";
    gates.push_back(kept ? Json{{"id", gate.id}, {"metric", "rate"}, {"op", ">="}, {"threshold", 0}}
                         : Json{{"id", gate.id}, {"off", true}});
  }
  const Json recipe = {
      {"name", "two"}, {"extends", "companion"}, {"gates", gates}, {"cases", {"concise.gate", "factual.gate"}}};
  std::ofstream(dir / "two.json") << gate::dump(recipe);
  return (dir / "two.json").string();
}

TEST(GateCommand, ComparedWithItselfNothingDiffers) {
  const Scratch dir;
  const ReplayServer server(right());
  const Outcome outcome =
      nibble_command(gate_of(server, {"--against", server.url(), "--output", (dir / "self").string()}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  const Json compared = json_of(dir / "self/compare.json");
  EXPECT_EQ(compared["pairs"], companion().cases.size());
  EXPECT_EQ(compared["verbosity"], 1.0);
  EXPECT_EQ(compared["same_text"], 1.0);
  EXPECT_EQ(compared["trigger_f1"], 1.0);
  EXPECT_TRUE(compared["disagreements"].empty());
  for (const Json& gate : compared["gates"]) {
    EXPECT_GT(gate["n"], 0) << gate;
    EXPECT_EQ(gate["only_a"], 0) << gate;
    EXPECT_EQ(gate["only_b"], 0) << gate;
    EXPECT_TRUE(gate["flipped"].empty()) << gate;
    EXPECT_EQ(gate["p"], 1.0) << gate;
    EXPECT_EQ(gate["p_holm"], 1.0) << gate;
  }
  EXPECT_NE(outcome.out.find("words of a reply, B by A  1.00"), std::string::npos) << outcome.out;
}

// The same comparison with a model that is wordier: flips one way, and more words.
TEST(GateCommand, ComparedWithAWorseModelItsGateFlips) {
  const Scratch dir;
  const ReplayServer server(right()), other(wordy());
  const Outcome outcome = nibble_command(gate_of(
      server, {"--recipe", two_behaviours(dir), "--against", other.url(), "--output", (dir / "other").string()}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json compared = json_of(dir / "other/compare.json");
  EXPECT_GT(compared["verbosity"], 1.5);
  for (const Json& gate : compared["gates"]) {
    EXPECT_EQ(gate["only_b"], 0) << gate;
    EXPECT_EQ(gate["only_a"], gate["id"] == "concise" ? gate["n"] : Json(0)) << gate;
  }
}

// A report without what depends on the clock.
Json timeless(Json report) {
  report.erase("latency");
  for (const char* key : {"started", "seconds"}) report["run"].erase(key);
  std::erase_if(report["gates"].get_ref<Json::array_t&>(),
                [](const Json& gate) { return gate["metric"] != "rate" && gate["metric"] != "count"; });
  for (Json& play : report["conversations"]) {
    for (Json& turn : play["turns"]) {
      for (const char* key : {"ttfat_ms", "ms"}) turn.erase(key);
    }
  }
  return report;
}

// Killed at random moments and taken up until it is done: the report of an undisturbed run.
TEST(GateCommand, KilledTwentyTimes) {
  const Scratch dir;
  const ReplayServer server(GoodScript::of(companion(), "concise", ramble, [](size_t) { return 20; }).text("Yes."));
  const std::string recipe = two_behaviours(dir);
  const auto play = [&](const std::string& name) {
    return gate_of(server, {"--recipe", recipe, "--jobs", "2", "--output", (dir / name).string(), "--resume"});
  };
  const Stopwatch watch;
  const Outcome outcome = nibble_command(play("whole"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  const double whole_s = watch.seconds();
  const Json expected = timeless(json_of(dir / "whole/report.json"));
  EXPECT_GT(expected["overall"]["passed"], 0);
  EXPECT_LT(expected["overall"]["passed"], expected["overall"]["n"]);
  Rng rng(7);
  int kills = 0;
  for (int run = 0; kills < 20 && run < 20; ++run) {
    const std::string name = "killed-" + std::to_string(run);
    const int killed = run_killed(play(name), whole_s, 8, rng);
    ASSERT_GE(killed, 0) << run;
    kills += killed;
    EXPECT_EQ(timeless(json_of(dir / name / "report.json")), expected) << run;
  }
  EXPECT_GE(kills, 20);
}

// A baseline whose first tokens came after so long, however busy this machine is.
void set_first_token(const std::string& baseline, double ms) {
  Json json = json_of(baseline);
  json["ttfat_ms"] = {{"p50", ms}, {"mad", 0}};
  std::ofstream(baseline) << gate::dump(json);
}

TEST(GateCommand, ARegressionFailsWhereItIsAskedTo) {
  const Scratch dir;
  const ReplayServer server(right()), worse(wordy());
  const std::string recipe = two_behaviours(dir), baseline = (dir / "baseline.json").string();
  const auto run = [&](const ReplayServer& with, const std::vector<std::string>& flags) {
    return nibble_command(gate_of(with, words({"--recipe", recipe}, flags)));
  };
  EXPECT_EQ(run(server, {"--save-baseline", baseline}).exit_code, 0);
  set_first_token(baseline, 60'000);
  const Outcome same = run(server, {"--baseline", baseline, "--fail-on-regression"});
  EXPECT_EQ(same.exit_code, 0) << same.out << same.err;
  EXPECT_EQ(same.out.find("regression"), std::string::npos) << same.out;
  EXPECT_EQ(run(worse, {}).exit_code, 0);  // no gate of the recipe minds
  const Outcome told = run(worse, {"--baseline", baseline, "--json"});
  EXPECT_EQ(told.exit_code, 0) << told.err;
  const Json json = parse_json(told.out, "report", {.max_keys = 1 << 20}).value();
  ASSERT_EQ(json["regressions"].size(), 1u) << json["regressions"];
  EXPECT_EQ(json["regressions"][0].get<std::string>().substr(0, 31), "concise: 100.0 % then, 0.0 % no");
  Outcome failed = run(worse, {"--baseline", baseline, "--fail-on-regression"});
  EXPECT_EQ(failed.exit_code, 1) << failed.out;
  EXPECT_NE(failed.out.find("regression"), std::string::npos) << failed.out;
  set_first_token(baseline, 1e-3);
  failed = run(server, {"--baseline", baseline, "--fail-on-regression"});
  EXPECT_EQ(failed.exit_code, 1) << failed.out;
  EXPECT_NE(failed.out.find("slower: first token of an answer"), std::string::npos) << failed.out;
  // A baseline is of one run: with two it is refused before anything is played.
  for (const std::vector<std::string>& flags :
       {std::vector<std::string>{"--against", worse.url(), "--baseline", baseline},
        {"--hardened", "--save-baseline", (dir / "new.json").string()}}) {
    const Outcome refused = run(server, flags);
    EXPECT_EQ(refused.exit_code, 2);
    EXPECT_NE(refused.err.find("baseline"), std::string::npos) << refused.err;
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "new.json"));
}

// Latency is judged where the server's hardware is what the recipe names; what a run was is in its report.
TEST(GateCommand, LatencyIsJudgedOnTheHardwareThatTheRecipeNames) {
  const Scratch dir;
  Json gates = Json::array();
  for (const gate::Gate& gate : companion().gates) {
    if (!gate.id.starts_with("ttft")) gates.push_back({{"id", gate.id}, {"off", true}});
  }
  const Json recipe = {{"extends", "companion"}, {"hardware", "GB10"}, {"gates", gates}, {"cases", {"long_talk.gate"}}};
  std::ofstream(dir / "speed.json") << gate::dump(recipe);
  const ReplayServer server(right());
  const auto run = [&](const std::vector<std::string>& flags) {
    const Outcome outcome =
        nibble_command(gate_of(server, words({"--recipe", (dir / "speed.json").string(), "--json"}, flags)));
    EXPECT_NE(outcome.exit_code, 2) << outcome.err;
    return parse_json(outcome.out, "report", {.max_keys = 1 << 20}).value();
  };
  const auto judged = [](const Json& report) { return report["gates"][0]["verdict"] != "not_judged"; };
  const Json here = run({"--hardware", "NVIDIA GB10, 128 GB"});
  EXPECT_TRUE(judged(here));
  EXPECT_EQ(here["run"]["hardware"], "NVIDIA GB10, 128 GB");
  EXPECT_EQ(here["run"]["jobs"], 1);
  EXPECT_EQ(here["run"]["prompt_hash"].get<std::string>().size(), 64u);
  EXPECT_TRUE(here["run"]["git"].is_string());
  EXPECT_FALSE(judged(run({"--hardware", "NVIDIA H200"})));
  EXPECT_FALSE(judged(run({})));
  EXPECT_TRUE(judged(run({"--judge-latency"})));
}

TEST(GateCommand, ExplainsWhatItFound) {
  const Scratch dir;
  const ReplayServer server(
      GoodScript::of(companion(), "concise", [](const gate::Case&, size_t, GoodScript::Messages& messages) {
        messages.back().text = "**Well.** " + messages.back().text;
      }).text("Yes."));
  const Outcome outcome = nibble_command(gate_of(server, {"--recipe", two_behaviours(dir), "--explain"}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find(", turn 1: md.bold at 0-9: **Well.**\n"), std::string::npos) << outcome.out;
}

// What gate keeps of its runs, and what is told of them.
TEST(RunsCommand, ListsComparesAndExports) {
  const Scratch dir;
  const std::string recipe = two_behaviours(dir), store = (dir / "runs").string();
  EXPECT_EQ(nibble_command({"runs", "list", "--store", store}).exit_code, 2);  // there is none yet
  {
    const ReplayServer server(right()), worse(wordy());
    EXPECT_EQ(nibble_command(gate_of(server, {"--recipe", recipe, "--output", store + "/good"})).exit_code, 0);
    EXPECT_EQ(nibble_command(gate_of(worse, {"--recipe", recipe, "--output", store + "/bad"})).exit_code, 0);
  }
  const auto runs = [&](std::vector<std::string> verb, const char* form = "--json") {
    verb.insert(verb.begin(), "runs");
    verb.insert(verb.end(), {"--store", store});
    if (*form != 0) verb.emplace_back(form);
    const Outcome outcome = nibble_command(verb);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  };
  const Json list = parse_json(runs({"list"}), "list").value();
  ASSERT_EQ(list.size(), 2u);
  std::map<std::string, Json> by_name;
  for (const Json& run : list) by_name[run["id"].get<std::string>()] = run;
  EXPECT_EQ(by_name.at("good")["passed"], by_name.at("good")["cases"]);
  EXPECT_LT(by_name.at("bad")["passed"], by_name.at("bad")["cases"]);
  EXPECT_EQ(by_name.at("bad")["recipe"], "two");
  EXPECT_NE(runs({"list"}, "").find("good"), std::string::npos);
  const Json compared = parse_json(runs({"compare", "good", "bad"}), "compare").value();
  EXPECT_EQ(compared["a"]["id"], "good");
  std::map<std::string, Json> gates;
  for (const Json& gate : compared["gates"]) gates[gate["id"].get<std::string>()] = gate;
  EXPECT_EQ(gates.at("concise")["a"], 1.0);
  EXPECT_EQ(gates.at("concise")["b"], 0.0);
  EXPECT_EQ(gates.at("factual")["b"], 1.0);
  const Json shown = parse_json(runs({"show", "bad"}), "show").value();
  const Path file = dir / "bad.json";
  runs({"export", "bad", "--output", file.string()}, "");
  EXPECT_EQ(json_of(file), shown);
  Json report = json_of(dir / "runs/bad/report.json");
  report.erase("conversations");
  EXPECT_EQ(shown, report);
  EXPECT_EQ(nibble_command({"runs", "show", "nothing", "--store", store}).exit_code, 2);
}

// All 31 conversations, as often as so many sessions and messages ask for.
TEST(GateCommand, ConversesAsOftenAsAsked) {
  const Scratch dir;
  const gate::Recipe recipe = gate::load_recipe("converse").value();
  const ReplayServer server(GoodScript::of(recipe).text("Yes."));
  const Outcome outcome = nibble_command({"converse", "--endpoint", server.url(), "--sessions", "44", "--messages",
                                          "514", "--jobs", "32", "--output", (dir / "talk").string()});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  const Json report = json_of(dir / "talk/report.json");
  EXPECT_EQ(report["overall"]["n"], 93);  // 44 sessions are two rounds of 31, 514 messages are three
  EXPECT_EQ(report["overall"]["passed"], 93) << outcome.out;
  EXPECT_EQ(report["overall"]["with_manners"], 93) << outcome.out;
  int64_t messages = 0;
  std::map<std::string, std::set<int64_t>> repeats;
  for (const Json& play : report["conversations"]) {
    messages += static_cast<int64_t>(play["turns"].size());
    repeats[play["id"].get<std::string>()].insert(play["repeat"].get<int64_t>());
  }
  EXPECT_GE(messages, 514);
  EXPECT_EQ(repeats.size(), 31u);
  for (const auto& [id, seen] : repeats) EXPECT_EQ(seen.size(), 3u) << id;
}

}  // namespace
}  // namespace nibble::test

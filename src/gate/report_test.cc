#include "gate/report.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

Case case_of(std::string id, std::vector<std::string> gates, std::string category = "c") {
  Case one;
  one.id = std::move(id);
  one.gates = std::move(gates);
  one.category = std::move(category);
  return one;
}

// A record of one turn and one message.
CaseRecord played(const Case& one, bool passes, std::vector<Anomaly> anomalies = {}, double first_ms = 100) {
  CaseRecord record;
  record.key = record.id = one.id;
  record.category = one.category;
  record.gates = one.gates;
  PlayedTurn& turn = record.turns.emplace_back();
  turn.user = "u";
  PlayedMessage& message = turn.messages.emplace_back();
  message.said.reply.content = "one two";
  message.said.finish = "stop";
  message.said.times = {.headers_ms = 1,
                        .first_chunk_ms = 50,
                        .first_answer_ms = first_ms,
                        .end_ms = 300,
                        .answer_ms = {first_ms, first_ms + 100}};
  message.said.usage.completion_tokens = 11;
  message.anomalies = std::move(anomalies);
  if (!passes) turn.failures.push_back({"must", "expected x"});
  return record;
}

Recipe recipe_of(std::vector<Gate> gates) {
  Recipe recipe;
  recipe.gates = std::move(gates);
  return recipe;
}

TEST(Report, ARateCountsTheCasesThatListTheGate) {
  ReportBuilder builder(recipe_of({{.id = "factual", .threshold = 0.6}, {.id = "other"}}), {});
  for (int i = 0; i < 3; ++i) {
    const Case one = case_of(std::to_string(i), {"factual"});
    builder.add(one, played(one, i != 0));
  }
  builder.add_missing(case_of("3", {"factual"}));
  const Report report = builder.finish();
  const GateResult& gate = report.gates[0];
  EXPECT_EQ(gate.k, 2);
  EXPECT_EQ(gate.n, 4);
  EXPECT_EQ(gate.value, 0.5);
  EXPECT_EQ(gate.interval.low, wilson_95(2, 4).low);
  EXPECT_EQ(gate.verdict, Verdict::fail);
  EXPECT_EQ(gate.failures, (std::vector<std::string>{"0", "3"}));
  EXPECT_EQ(gate.worst[0].second, "turn 1: must: expected x");
  EXPECT_EQ(report.gates[1].verdict, Verdict::inconclusive);
  EXPECT_EQ(report.overall.cases, 4);
  EXPECT_EQ(report.exit_code(), 1);
}

TEST(Report, ALeakCountsAllRepliesAndWhatCouldNotBeProved) {
  const std::vector<Gate> gates = {{.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0.2, .min_cases = 2}};
  ReportBuilder builder(recipe_of(gates), {});
  const Case dedicated = case_of("a", {"markdown_leak"}), aborted = case_of("b", {"markdown_leak"});
  builder.add(dedicated, played(dedicated, true, {{"md.bold", "**x**"}}));
  for (int i = 0; i < 8; ++i) {
    const Case other = case_of("o" + std::to_string(i), {"factual"});
    builder.add(other, played(other, true));
  }
  CaseRecord nothing = played(aborted, false);
  nothing.turns[0].messages.clear();
  builder.add(aborted, nothing);
  const GateResult gate = std::move(builder.finish().gates[0]);
  EXPECT_EQ(gate.k, 2);  // the hit, and the case that never spoke
  EXPECT_EQ(gate.n, 10);
  EXPECT_EQ(gate.verdict, Verdict::pass);  // exactly at the threshold
  EXPECT_EQ(gate.failures, (std::vector<std::string>{"a", "b"}));
}

TEST(Report, FewerCasesThanNeededProveNothing) {
  ReportBuilder builder(recipe_of({{.id = "factual", .threshold = 0.5, .min_cases = 2}}), {});
  const Case one = case_of("a", {"factual"});
  builder.add(one, played(one, true));
  const Report report = builder.finish();
  EXPECT_EQ(report.gates[0].verdict, Verdict::inconclusive);
  EXPECT_EQ(report.gates[0].why, "1 cases, 2 are needed");
  EXPECT_EQ(report.exit_code(), 1);
}

// Dropping cases never raises a rate.
TEST(Report, TheDenominatorIsFixed) {
  std::vector<Case> cases;
  for (int i = 0; i < 30; ++i) cases.push_back(case_of(std::to_string(i), {"g"}));
  for (size_t dropped = 0; dropped < cases.size(); ++dropped) {
    ReportBuilder whole(recipe_of({{.id = "g"}})), part(recipe_of({{.id = "g"}}));
    for (size_t i = 0; i < cases.size(); ++i) {
      const CaseRecord record = played(cases[i], i % 3 != 0);
      whole.add(cases[i], record);
      if (i == dropped) {
        part.add_missing(cases[i]);
      } else {
        part.add(cases[i], record);
      }
    }
    EXPECT_LE(part.finish().gates[0].value, whole.finish().gates[0].value);
  }
}

TEST(Report, StrictAsksForTheWholeInterval) {
  for (const bool strict : {false, true}) {
    ReportBuilder builder(recipe_of({{.id = "g", .threshold = 0.9}}), {.strict = strict});
    for (int i = 0; i < 20; ++i) {
      const Case one = case_of(std::to_string(i), {"g"});
      builder.add(one, played(one, true));
    }
    EXPECT_EQ(builder.finish().gates[0].verdict, strict ? Verdict::fail : Verdict::pass);
  }
}

// The repeats of a case are one draw: with all or nothing in each, the interval is that of 10 cases, not of 100.
TEST(Report, RepeatsOfACaseAreACluster) {
  ReportBuilder builder(recipe_of({{.id = "g", .threshold = 0.5}}), {.repeats = 10});
  for (int i = 0; i < 10; ++i) {
    const Case one = case_of(std::to_string(i), {"g"});
    for (int repeat = 0; repeat < 10; ++repeat) builder.add(one, played(one, i < 7));
  }
  const GateResult gate = std::move(builder.finish().gates[0]);
  EXPECT_EQ(gate.k, 70);
  EXPECT_EQ(gate.n, 100);
  EXPECT_LT(gate.interval.low, wilson_95(70, 100).low - 0.1);
}

TEST(Report, LatencyIsJudgedOnRequest) {
  const std::vector<Gate> gates = {
      {.id = "ttft", .metric = Metric::p95, .bound = Bound::at_most, .threshold = 150},
      {.id = "ttft_growth", .metric = Metric::ratio, .bound = Bound::at_most, .threshold = 1.3},
      {.id = "decode", .metric = Metric::p50, .threshold = 90}};
  for (const bool judged : {false, true}) {
    ReportBuilder builder(recipe_of(gates), {.judge_latency = judged});
    const Case one = case_of("a", {});
    CaseRecord record = played(one, true);
    for (int turn = 1; turn < 20; ++turn) {
      record.turns.push_back(played(one, true, {}, turn < 10 ? 100 : 200).turns[0]);
    }
    builder.add(one, record);
    const Report report = builder.finish();
    EXPECT_EQ(report.latency.growth, 2);
    EXPECT_EQ(report.latency.warm_ttfat_ms.n, 19);
    EXPECT_EQ(report.latency.decode_tok_s.p50, 100);
    EXPECT_EQ(report.gates[0].verdict, judged ? Verdict::fail : Verdict::not_judged);
    EXPECT_EQ(report.gates[1].verdict, judged ? Verdict::fail : Verdict::not_judged);
    EXPECT_EQ(report.gates[2].verdict, judged ? Verdict::pass : Verdict::not_judged);
    EXPECT_EQ(report.exit_code(), judged ? 1 : 0);
  }
}

TEST(Report, RecordsComeBackAsTheyWere) {
  const Case one = case_of("a", {"g", "h"});
  CaseRecord record = played(one, false, {{"md.bold", "**x**", false, {}, 4, 9}, {"url", "http://x", true}});
  record.turns[0].messages[0].said.reply.calls = {{"1", "f", "{}"}};
  record.turns[0].messages[0].results = {"r"};
  record.turns[0].anomalies = {{"tool_loop", "f {}"}};
  record.turns[0].not_judged = "judge: is it kind?";
  record.retries = 2;
  const auto again = record_from_json(to_json(record), "record");
  ASSERT_TRUE(again.ok()) << again.status().text();
  EXPECT_EQ(to_json(*again), to_json(record));
  EXPECT_EQ(record_from_json({{"id", 1}}, "record").status().code(), Code::corrupt);
}

// 36 of 40 pass at 80 % and their interval does not reach it; 40 of 40 prove it.
TEST(Report, SaysWhatPassedButIsNotProved) {
  for (const int failed : {0, 4}) {
    ReportBuilder builder(recipe_of({{.id = "g", .threshold = 0.8}}));
    for (int i = 0; i < 40; ++i) {
      const Case one = case_of(std::to_string(i), {"g"});
      builder.add(one, played(one, i >= failed));
    }
    const Report report = builder.finish();
    EXPECT_EQ(report.gates[0].verdict, Verdict::pass);
    EXPECT_EQ(to_json(report)["gates"][0]["proved"], failed == 0);
    const size_t said = to_text(report).find("passed, but by too few to prove it: g (47 with 4 failed would)\n");
    EXPECT_EQ(said != std::string::npos, failed == 4) << to_text(report);
  }
}

TEST(Report, ExplainsEveryFinding) {
  CaseRecord record =
      played(case_of("a", {}), false, {{"md.bold", "**x**", false, {}, 4, 9}, {"url", "http://x", true}});
  record.turns[0].anomalies = {{"tool_loop", "f {}", false, "known"}};
  EXPECT_EQ(findings_text(record),
            "a, turn 1: md.bold at 4-9: **x**\na, turn 1: url (warning): http://x\n"
            "a, turn 1: tool_loop (excused: known): f {}\na, turn 1: failed must: expected x\n");
  EXPECT_EQ(findings_text(played(case_of("a", {}), true)), "");
}

TEST(Report, WritesATable) {
  ReportBuilder builder(recipe_of({{.id = "factual"}}), {});
  const Case one = case_of("a", {"factual"}, "web");
  builder.add(one, played(one, false, {{"md.bold", "**x**"}}));
  const std::string text = to_text(builder.finish());
  EXPECT_NE(text.find("factual               0/1      0.0 %    0.0 …  79.3   >= 100   %  fail\n"
                      "    a: turn 1: must: expected x\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("overall               0/1      0.0 %    0.0 …  79.3      0.0 %       0         1     0\n"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace nibble::gate

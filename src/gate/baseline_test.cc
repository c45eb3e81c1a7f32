#include "gate/baseline.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

// `passes` of `n` plays pass the gate g.
Baseline with(int passes, int n, Verdict verdict = Verdict::pass) {
  Baseline baseline;
  for (int i = 0; i < n; ++i) baseline.plays["g"]["case" + std::to_string(i) + "#1"] = i < passes;
  baseline.verdicts["g"] = verdict;
  baseline.ttfat_ms = {.n = n, .p50 = 100, .mad = 5};
  return baseline;
}

TEST(Baseline, ComesBackAsItWasWritten) {
  const test::TemporaryFolder folder;
  Baseline baseline = with(3, 5);
  baseline.recipe = "companion";
  baseline.model = "m";
  baseline.started = "2026-01-01T00:00:00Z";
  ASSERT_TRUE(write_baseline(folder / "b.json", baseline).ok());
  const auto again = read_baseline(folder / "b.json");
  ASSERT_TRUE(again.ok()) << again.status().text();
  EXPECT_EQ(again->recipe, "companion");
  EXPECT_EQ(again->model, "m");
  EXPECT_EQ(again->started, baseline.started);
  EXPECT_EQ(again->plays, baseline.plays);
  EXPECT_EQ(again->verdicts, baseline.verdicts);
  EXPECT_EQ(again->ttfat_ms.p50, 100);
  EXPECT_EQ(again->ttfat_ms.mad, 5);
  for (const char* text : {"", "[]", "{}", R"({"schema": 2, "gates": []})", R"({"schema": 1, "gates": [{"id": "g"}]})",
                           R"({"schema": 1, "gates": 3})",
                           R"({"schema": 1, "gates": [{"id": "g", "verdict": "pass", "plays": {"a#1": 1}}]})"}) {
    EXPECT_EQ(read_baseline(folder.write("bad.json", text)).status().code(), Code::corrupt) << text;
  }
  EXPECT_EQ(read_baseline(folder / "none.json").status().code(), Code::not_found);
}

TEST(Baseline, NothingRegressesAgainstItself) {
  const BaselineComparison same = compare_with_baseline(with(30, 40), with(30, 40));
  EXPECT_FALSE(same.regressed());
  EXPECT_EQ(same.gates[0].n, 40);
  EXPECT_EQ(same.gates[0].fixed + same.gates[0].broken, 0);
  EXPECT_EQ(same.gates[0].p_holm, 1);
}

TEST(Baseline, AGateThatPassedAndFailsRegresses) {
  const BaselineComparison fell = compare_with_baseline(with(36, 40), with(35, 40, Verdict::fail));
  EXPECT_EQ(fell.regressions, std::vector<std::string>{"g: 90.0 % then, 87.5 % now (p 1, passed then)"});
  EXPECT_FALSE(compare_with_baseline(with(36, 40), with(35, 40)).regressed());
  EXPECT_FALSE(compare_with_baseline(with(36, 40, Verdict::fail), with(35, 40, Verdict::fail)).regressed());
}

// Six flips one way are p = .03, five are .06; and a drop counts from two points on.
TEST(Baseline, ASignificantDropRegresses) {
  EXPECT_TRUE(compare_with_baseline(with(40, 40), with(34, 40)).regressed());
  EXPECT_FALSE(compare_with_baseline(with(40, 40), with(35, 40)).regressed());
  EXPECT_FALSE(compare_with_baseline(with(34, 40), with(40, 40)).regressed());
  EXPECT_TRUE(compare_with_baseline(with(300, 300), with(294, 300)).regressed());
  EXPECT_FALSE(compare_with_baseline(with(301, 301), with(295, 301)).regressed());
}

TEST(Baseline, OnlyPlaysThatBothHoldAreCompared) {
  Baseline then = with(40, 40), now = with(0, 30);
  now.plays["g"]["new#1"] = false;
  const BaselineComparison comparison = compare_with_baseline(then, now);
  EXPECT_EQ(comparison.gates[0].n, 30);
  EXPECT_EQ(comparison.lost, 10);
  EXPECT_EQ(comparison.added, 1);
  EXPECT_NE(to_text(comparison).find("not compared: 10 plays of the baseline, 1 of this run"), std::string::npos);
}

// More than a tenth and more than three median deviations of the baseline.
TEST(Baseline, ALaterFirstTokenRegresses) {
  Baseline now = with(40, 40);
  now.ttfat_ms.p50 = 116;
  EXPECT_TRUE(compare_with_baseline(with(40, 40), now).slower);
  EXPECT_EQ(compare_with_baseline(with(40, 40), now).regressions.size(), 1u);
  now.ttfat_ms.p50 = 114;
  EXPECT_FALSE(compare_with_baseline(with(40, 40), now).regressed());
  Baseline then = with(40, 40);
  then.ttfat_ms.mad = 1;
  now.ttfat_ms.p50 = 109;
  EXPECT_FALSE(compare_with_baseline(then, now).regressed());
}

}  // namespace
}  // namespace nibble::gate

#include "gate/report.h"

#include <gtest/gtest.h>

namespace nibble::gate {
namespace {

GateReport sample() {
  GateReport report;
  report.endpoint = "http://127.0.0.1:1";
  report.model = "m";
  report.max_tokens = 110;
  report.thinking = "off";
  report.results = {
      {.id = "1", .category = "web", .passed = true},
      {.id = "2", .category = "web", .passed = true, .manners = {.markdown = true}},
      {.id = "3",
       .category = "web",
       .manners = {.thinks = true, .asks = true},
       .reason = "turn 1: r",
       .transcript = {"user: u", "reply: a"}},
      {.id = "4", .category = "memory", .reason = "turn 2: s"},
  };
  return report;
}

TEST(GateReport, CountsEveryCase) {
  const Tally all = sample().overall();
  EXPECT_EQ(all.cases, 4);
  EXPECT_EQ(all.passed, 2);
  EXPECT_EQ(all.with_manners, 1);
  EXPECT_EQ(all.thinks, 1);
  EXPECT_EQ(all.markdown, 1);
  EXPECT_EQ(all.asks, 1);
  const auto categories = sample().categories();
  ASSERT_EQ(categories.size(), 2u);
  EXPECT_EQ(categories[0].category, "memory");
  EXPECT_EQ(categories[0].passed, 0);
  EXPECT_EQ(categories[1].cases, 3);
}

TEST(GateReport, WritesJson) {
  const Json json = to_json(sample());
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["run"]["model"], "m");
  EXPECT_EQ(json["overall"]["rate"], 0.5);
  EXPECT_NEAR(json["overall"]["ci"][0].get<double>(), wilson_95(2, 4).low, 1e-12);
  EXPECT_EQ(json["categories"].size(), 2u);
  ASSERT_EQ(json["failures"].size(), 2u);
  EXPECT_EQ(json["failures"][0].dump(),
            R"({"id":"3","category":"web","reason":"turn 1: r","transcript":["user: u","reply: a"]})");
}

TEST(GateReport, WritesATable) {
  EXPECT_EQ(to_text(sample(), 1),
            "category             passed   rate  95 % interval w/ manners  thinks  markdown  asks\n"
            "memory              0/1      0.0 %    0.0 …  79.3      0.0 %       0         0     0\n"
            "web                 2/3     66.7 %   20.8 …  93.9     33.3 %       1         1     1\n"
            "overall             2/4     50.0 %   15.0 …  85.0     25.0 %       1         1     1\n"
            "\n"
            "case 3 (web): turn 1: r\n"
            "  user: u\n"
            "  reply: a\n");
}

}  // namespace
}  // namespace nibble::gate

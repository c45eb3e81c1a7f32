#include "gate/suppress.h"

#include <gtest/gtest.h>

#include "gate/gate_unit.h"
#include "gate/report.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

CaseRecord bold_and_bulleted(const std::string& id) {
  CaseRecord record{.key = id, .id = id, .category = "c", .gates = {"g"}, .turns = {}, .error = {}, .lacking = {}};
  PlayedMessage& message = record.turns.emplace_back(PlayedTurn{.user = "u"}).messages.emplace_back();
  message.said.reply.content = "text";
  message.anomalies = {{.id = "md.bold", .snippet = "**x**"}, {.id = "md.bullet", .snippet = "- y"}};
  return record;
}

TEST(Suppress, ReadsLinesAndRefusesOthers) {
  const test::TemporaryFolder folder;
  folder.write("ok", R"({"case": "a", "detector": "md.bold", "reason": "a title"})"
                     "\n");
  const auto read = read_suppressions(folder / "ok");
  ASSERT_TRUE(read.ok()) << read.status().text();
  EXPECT_EQ(read->at(0).reason, "a title");
  for (const char* bad : {R"({"case": "a", "detector": "md"})", R"({"case": 1, "detector": "md", "reason": ""})", "[]",
                          R"({"case": "a", "detector": "md", "reason": "r", "until": 3})", "{"}) {
    folder.write("bad", bad);
    EXPECT_EQ(read_suppressions(folder / "bad").status().code(), Code::corrupt) << bad;
  }
}

TEST(Suppress, AGateNoLongerCountsWhatIsExcusedAndTheReportListsIt) {
  const Suppression family{"a", "md", "both are quotes"}, one_kind{"a", "md.bold", "a title"}, other{"b", "md", "no"};
  struct Expected {
    std::vector<Suppression> suppressions;
    int64_t hits, excused;
    bool clean;
  };
  for (const auto& [suppressions, hits, excused, clean] :
       {Expected{{}, 1, 0, false}, {{family}, 0, 2, true}, {{one_kind}, 1, 1, false}, {{other}, 1, 0, false}}) {
    CaseRecord record = bold_and_bulleted("a");
    suppress(suppressions, record);
    EXPECT_EQ(record.clean(), clean);
    Recipe recipe;
    recipe.gates = {{.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0}};
    ReportBuilder builder(recipe);
    Case one;
    one.id = "a";
    builder.add(one, record);
    const Report report = builder.finish();
    EXPECT_EQ(report.gates[0].k, hits);
    int64_t listed = 0;
    for (const Suppressed& found : report.suppressed) listed += found.hits;
    EXPECT_EQ(listed, excused);
    EXPECT_EQ(report.anomalies.size() + report.suppressed.size(), 2u);
  }
}

}  // namespace
}  // namespace nibble::gate

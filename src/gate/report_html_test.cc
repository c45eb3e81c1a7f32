#include "gate/report_html.h"

#include <gtest/gtest.h>

#include "gate/markup.h"
#include "tests/support/gate_log.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

const std::string kNasty = "</script><script>alert(1)</script><!-- ]]> <img src=x onerror=alert(2)> \x1b";

Recipe recipe_of(size_t cases) {
  Recipe recipe;
  recipe.name = "small";
  recipe.title = "a <small> recipe";
  recipe.gates = {{.id = "factual", .threshold = 0.9},
                  {.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0.5}};
  for (size_t i = 0; i < cases; ++i) {
    Case& one = recipe.cases.emplace_back();
    one.id = "case " + std::to_string(i);
    one.category = i % 2 == 0 ? "even" : "<odd>";
    one.gates = {"factual"};
    one.turns.emplace_back().user = "u";
  }
  return recipe;
}

// The JSON of the blocks whose head bears `attribute`.
std::vector<Json> blocks(const std::string& html, const std::string& attribute) {
  std::vector<Json> found;
  const std::string head = "<script type=\"application/json\" " + attribute + ">";
  for (size_t at = 0; (at = html.find(head, at)) != std::string::npos;) {
    at += head.size();
    found.push_back(parse_json(html.substr(at, html.find("</script>", at) - at), attribute).value());
  }
  return found;
}

size_t count(const std::string& text, const std::string& piece) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(piece, at)) != std::string::npos; at += piece.size()) ++n;
  return n;
}

// The page's own script, and its policy, which allows that one alone.
void expect_closed_page(const std::string& html) {
  const size_t begin = html.rfind("<script>") + 8;
  const std::string script = html.substr(begin, html.rfind("</script>") - begin);
  EXPECT_NE(html.find("default-src 'none'; style-src 'unsafe-inline'; script-src '" + csp_source(script) + "'"),
            std::string::npos);
  EXPECT_EQ(count(html, "<script>"), 1u);
  EXPECT_EQ(count(html, "<script"), count(html, "</script>"));
  EXPECT_EQ(count(html, "<img"), 0u);
  for (const char* piece : {"<link", "<iframe", "@import", "url(", "href=\"http"}) {
    EXPECT_EQ(count(html.substr(0, html.find("<script type")), piece), 0u) << piece;
  }
}

CaseRecord play(const Case& one) {
  CaseRecord record = test::played(one, one.id != "case 1", "**bold** " + kNasty, kNasty);
  record.turns[0].messages[0].said.reply.calls = {{"1", "f" + kNasty, "{}"}};
  record.turns[0].messages[0].results = {kNasty};
  if (one.id != "case 0") return record;
  record.turns[0].messages[0].anomalies = {{"md.bold", "**bold** " + kNasty}};
  return record;
}

TEST(ReportHtml, HoldsTheNumbersOfTheReportAndEveryPlay) {
  const test::TemporaryFolder folder;
  const Recipe recipe = recipe_of(250);
  const Records records = test::logged(folder / "run.jsonl", recipe, test::all_of(recipe), play);
  Report report = report_of(recipe, records, {}).value();
  report.run = {{"model", kNasty}, {"seconds", 1.5}};
  ASSERT_TRUE(write_report_html(folder / "report.html", recipe, records, report, 1).ok());
  const std::string html = read_file(folder / "report.html").value();
  expect_closed_page(html);
  ASSERT_EQ(blocks(html, "id=\"report\"").size(), 1u);
  const Json json = blocks(html, "id=\"report\"")[0];
  EXPECT_EQ(json, parse_json(to_json(report).dump(), "report").value());
  const auto has = [&](const std::string& piece) { EXPECT_NE(html.find(piece), std::string::npos) << piece; };
  const Json& gate = json["gates"][0];
  has(fmt::format("<td>{}/{}</td><td>{:.1f} %</td>", gate["k"].get<int>(), gate["n"].get<int>(),
                  100 * gate["rate"].get<double>()));
  has(fmt::format("<td>{:.1f} … {:.1f}</td><td>≥ 90 %</td>", 100 * gate["ci"][0].get<double>(),
                  100 * gate["ci"][1].get<double>()));
  has("all 2 judged gates pass");
  has("<a href=\"#category=%3Codd%3E\">&lt;odd&gt;</a>");
  has("a &lt;small&gt; recipe");
  size_t rows = 0, plays = 0;
  for (const Json& block : blocks(html, "class=\"rows\"")) rows += block.size();
  for (const Json& block : blocks(html, "class=\"plays\"")) plays += block.size();
  EXPECT_EQ(rows, 250u);
  EXPECT_EQ(plays, 250u);
  const Json first = blocks(html, "class=\"rows\"")[0];
  EXPECT_EQ(first[0]["sides"], parse_json(R"([{"verdict": "passed", "fails": ["markdown_leak"]}])", "x").value());
  EXPECT_EQ(first[0]["found"], Json({"md.bold"}));
  EXPECT_EQ(first[1]["sides"], parse_json(R"([{"verdict": "failed", "fails": ["factual"]}])", "x").value());
  EXPECT_EQ(first[2]["sides"], parse_json(R"([{"verdict": "clean", "fails": []}])", "x").value());
  EXPECT_EQ(blocks(html, "class=\"plays\"")[0][0][0], conversation_json(records.get("case 0", 1).value()));
}

TEST(ReportHtml, AComparisonHoldsBothSidesOfWhatDiffers) {
  const test::TemporaryFolder folder;
  const Recipe recipe = recipe_of(10);
  const Records a = test::logged(folder / "a.jsonl", recipe, test::all_of(recipe), play);
  const Records b = test::logged(folder / "b.jsonl", recipe, test::all_of(recipe), [](const Case& one) {
    if (one.id == "case 1") return test::played(one, true, "Delhi");
    CaseRecord record = play(one);
    if (one.id == "case 2") record.turns[0].messages[0].said.reply.content = kNasty + "!";
    return record;
  });
  const Comparison comparison = compare_runs(recipe, a, b, {}).value();
  const ComparedSides sides{a, b, "A <one>", "B two", true};
  ASSERT_TRUE(write_compare_html(folder / "compare.html", recipe, sides, comparison, 1).ok());
  const std::string html = read_file(folder / "compare.html").value();
  expect_closed_page(html);
  EXPECT_EQ(blocks(html, "id=\"report\"")[0], parse_json(to_json(comparison).dump(), "comparison").value());
  EXPECT_EQ(blocks(html, "id=\"sides\"")[0], Json({"A <one>", "B two"}));
  const Json rows = blocks(html, "class=\"rows\"")[0], plays = blocks(html, "class=\"plays\"")[0];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["id"], "case 1");
  EXPECT_EQ(rows[0]["sides"][0]["verdict"], "failed");
  EXPECT_EQ(rows[0]["sides"][1]["verdict"], "clean");
  EXPECT_EQ(rows[1]["id"], "case 2");
  EXPECT_EQ(plays[1][1]["turns"][0]["reply"], kNasty + "!");
  EXPECT_NE(html.find("<td>90.0 %</td><td>100.0 %</td><td>+10.0</td><td>0</td><td><a href=\"#gate=factual&amp;show="
                      "only_b\">1</a></td><td>1</td>"),
            std::string::npos);
  EXPECT_NE(html.find("NOT NEEDED"), std::string::npos);
}

}  // namespace
}  // namespace nibble::gate

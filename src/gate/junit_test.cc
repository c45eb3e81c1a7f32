#include "gate/junit.h"

#include <gtest/gtest.h>

#include "tests/support/gate_log.h"
#include "tests/support/temporary_folder.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

// Tags that close in order, attributes in quotes, no bare & and no character that XML forbids. Returns what is wrong.
std::string ill_formed(std::string_view xml) {
  if (!text::valid_utf8(xml)) return "not UTF-8";
  std::vector<std::string> open;
  for (size_t i = 0; i < xml.size(); ++i) {
    const auto here = [&] { return " at " + std::string(xml.substr(i, 40)); };
    if (static_cast<unsigned char>(xml[i]) < 0x20 && xml[i] != '\n' && xml[i] != '\t') return "control" + here();
    if (xml[i] == '&') {
      const size_t end = xml.find(';', i);
      if (end == std::string_view::npos || end - i > 6) return "bare &" + here();
    }
    if (xml[i] == '>') return "bare >" + here();
    if (xml[i] != '<') continue;
    const size_t end = xml.find('>', i);
    if (end == std::string_view::npos) return "open tag" + here();
    const std::string_view tag = xml.substr(i + 1, end - i - 1);
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0 || tag.find('<') != std::string_view::npos)
      return "tag" + here();
    const std::string word(tag.substr(tag[0] == '/', tag.find_first_of(" /", 1) - (tag[0] == '/')));
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "closes another" + here();
      open.pop_back();
    } else if (!tag.ends_with('/') && tag[0] != '?') {
      open.push_back(word);
    }
    i = end;
  }
  return open.empty() ? "" : "left open: " + open.back();
}

Recipe small_recipe() {
  Recipe recipe;
  recipe.name = "small";
  recipe.gates = {{.id = "factual", .threshold = 0.5},
                  {.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0},
                  {.id = "many", .threshold = 0.5, .min_cases = 9},
                  {.id = "ttft", .metric = Metric::p95, .bound = Bound::at_most, .threshold = 500}};
  for (const char* id : {"right", "wrong", "bold", "free", "lost"}) {
    Case& one = recipe.cases.emplace_back();
    one.id = id;
    one.category = "c";
    one.turns.emplace_back().user = "u";
  }
  for (const size_t i : {0, 1, 4}) recipe.cases[i].gates = {"factual"};
  recipe.cases[2].gates = {"many"};
  return recipe;
}

const std::string kNasty = std::string("</failure>]]><!-- <script>&amp; \"quoted\" ") + '\0' + "\x1b\x08 \xff\xfe";

CaseRecord play(const Case& one) {
  CaseRecord record = test::played(one, one.id != "wrong", kNasty, "</script>" + kNasty);
  if (one.id == "wrong") record.turns[0].failures[0].detail = kNasty;
  if (one.id == "bold") record.turns[0].messages[0].anomalies = {{"md.bold", "**" + kNasty}};
  return record;
}

TEST(JUnit, ASuiteForEachGateAndATestForEachCase) {
  const test::TemporaryFolder folder;
  const Recipe recipe = small_recipe();
  auto cases = test::all_of(recipe);
  cases.pop_back();
  const Records records = test::logged(folder / "run.jsonl", recipe, cases, play);
  const Report report = report_of(recipe, records, {}).value();
  ASSERT_TRUE(write_junit(folder / "junit.xml", recipe, records, report, 1).ok());
  const std::string xml = read_file(folder / "junit.xml").value();
  EXPECT_EQ(ill_formed(xml), "") << xml;
  const auto has = [&](const std::string& piece) {
    EXPECT_NE(xml.find(piece), std::string::npos) << piece << "\n" << xml;
  };
  has("<testsuites name=\"small\" tests=\"8\" failures=\"3\" errors=\"1\" skipped=\"1\">");
  has("<testsuite name=\"factual\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\">");
  has("<testcase classname=\"small.factual\" name=\"right\" time=\"0.300\"/>");
  has("<testcase classname=\"small.factual\" name=\"wrong\" time=\"0.300\">\n   <failure message=\"turn 1: must: "
      "&lt;/failure");
  has("<error message=\"");
  has("<testsuite name=\"markdown_leak\" tests=\"1\" failures=\"1\"");
  has("type=\"md.bold\"");
  has("<failure message=\"1 cases, 9 are needed\" type=\"inconclusive\"/>");
  has("<testsuite name=\"ttft\" tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"1\">");
  has("<testsuite name=\"other\" tests=\"1\" failures=\"0\"");
  has("<property name=\"threshold\" value=\"&gt;= 0.5\"/>");
}

TEST(JUnit, TheCheckFindsWhatIsIllFormed) {
  for (const char* xml : {"<a><b></a></b>", "<a>", "a & b", "a ]]> b", "<a b=\"c></a>", "\x01", "\xff"}) {
    EXPECT_NE(ill_formed(xml), "") << xml;
  }
  EXPECT_EQ(ill_formed("<?xml version=\"1.0\"?><a b=\"c\">d &amp; e<f/></a>"), "");
}

// Nothing stands under the name when a write fails.
TEST(JUnit, AFullDiskLeavesNoHalfAFile) {
  const test::TemporaryFolder folder;
  const Recipe recipe = small_recipe();
  const Records records = test::logged(folder / "run.jsonl", recipe, test::all_of(recipe), play);
  const Report report = report_of(recipe, records, {}).value();
  inject_file_faults([writes = 0](std::string_view operation, const Path&) mutable {
    return operation == "write" && ++writes > 3 ? io("write: no space") : Status();
  });
  EXPECT_EQ(write_junit(folder / "junit.xml", recipe, records, report, 1).code(), Code::io);
  inject_file_faults({});
  EXPECT_FALSE(std::filesystem::exists(folder / "junit.xml"));
}

}  // namespace
}  // namespace nibble::gate

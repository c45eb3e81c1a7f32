// Ten thousand cases: the files of a run do not depend on the order in which the cases were played, and memory does not
// grow while they are written.
#include "gate/run_files.h"

#include <gtest/gtest.h>

#include "base/machine.h"
#include "base/rng.h"
#include "gate/json_schema.h"
#include "tests/support/chat_server.h"
#include "tests/support/gate_log.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

constexpr size_t kCases = 10'000;

Recipe large_recipe(size_t cases) {
  Recipe recipe;
  recipe.name = "large";
  recipe.gates = {{.id = "even", .threshold = 0.9},
                  {.id = "odd", .threshold = 0.9},
                  {.id = "markdown_leak", .bound = Bound::at_most, .threshold = 0.5}};
  for (size_t i = 0; i < cases; ++i) {
    Case& one = recipe.cases.emplace_back();
    one.id = std::to_string(i);
    one.category = "c" + std::to_string(i % 7);
    one.gates = {i % 2 == 0 ? "even" : "odd"};
    Turn& turn = one.turns.emplace_back();
    turn.user = "say " + one.id;
    turn.expect.must.push_back(TextPattern::parse(i % 5 == 0 ? "what it does not say" : one.id, "must").value());
  }
  return recipe;
}

CaseRecord play(const Case& one) {
  const bool passes = one.id.back() != '3';
  CaseRecord record = test::played(one, passes, "</script> " + std::string(400, 'x') + one.id);
  if (!passes) record.turns[0].messages[0].anomalies = {{"md.bold", "**x**"}};
  return record;
}

constexpr const char* kFiles[] = {"report.json", "junit.xml", "report.html"};

void write_all(const Path& folder, const Recipe& recipe, const Records& records) {
  const auto report = report_of(recipe, records, {});
  ASSERT_TRUE(report.ok()) << report.status().text();
  const Status written = write_run_files(folder, "", recipe, records, *report, 1);
  ASSERT_TRUE(written.ok()) << written.text();
}

TEST(RunFiles, TenThousandCasesInAnyOrderGiveTheSameFilesInFlatMemory) {
  const Recipe recipe = large_recipe(kCases);
  std::vector<const Case*> shuffled = test::all_of(recipe);
  Rng rng(7);
  for (size_t i = shuffled.size(); i > 1; --i)
    std::swap(shuffled[i - 1], shuffled[rng.below(static_cast<uint32_t>(i))]);
  const test::TemporaryFolder one, other;
  const Records in_order = test::logged(one / "run.jsonl", recipe, test::all_of(recipe), play);
  const Records as_it_came = test::logged(other / "run.jsonl", recipe, shuffled, play);
  // The kernel forgets the peak so far, so that tests before this one do not hide what is to be seen.
  std::ofstream("/proc/self/clear_refs") << "5";
  const uint64_t before = peak_memory_bytes();
  write_all(one.path(), recipe, in_order);
  write_all(other.path(), recipe, as_it_came);
  const uint64_t grown = peak_memory_bytes() - before;
  uint64_t written = 0;
  for (const char* file : kFiles) written += std::filesystem::file_size(one / file);
  EXPECT_GT(written, 15u << 20);
  EXPECT_LT(grown, 8u << 20);
  for (const char* file : kFiles) {
    EXPECT_TRUE(read_file(one / file).value() == read_file(other / file).value()) << file;
    EXPECT_FALSE(std::filesystem::exists(one / (std::string(file) + ".tmp")));
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(one.path()), {}), 4);
}

// report.json says what recipes/gate/report.schema.json says it does; a value of a wrong type would be noticed.
TEST(RunFiles, TheReportFollowsItsSchema) {
  const Recipe recipe = large_recipe(20);
  const test::TemporaryFolder folder;
  Records records = test::logged(folder / "run.jsonl", recipe, test::all_of(recipe), play);
  records.suppress({{"3", "md", "an example of markdown"}});
  write_all(folder.path(), recipe, records);
  const std::string schema_file = NIBBLE_SOURCE_DIR "/recipes/gate/report.schema.json";
  const auto schema = JsonSchema::compile(parse_json(read_file(schema_file).value(), schema_file).value(), schema_file);
  ASSERT_TRUE(schema.ok()) << schema.status().text();
  EXPECT_EQ(schema->unknown_keywords(), std::vector<std::string>{});
  const Json report = parse_json(read_file(folder / "report.json").value(), "report.json").value();
  EXPECT_EQ(schema->violation(report).value(), std::nullopt);
  EXPECT_EQ(report["suppressed"][0]["case"], "3");
  EXPECT_EQ(report["conversations"].size(), 20u);
  for (const char* at : {"/gates/0/k", "/overall/rate", "/conversations/3/turns/0/anomalies/0/id", "/infra/errors"}) {
    Json wrong = report;
    wrong.at(Json::json_pointer(at)) = Json::array();
    EXPECT_NE(schema->violation(wrong).value(), std::nullopt) << at;
  }
}

TEST(RunFiles, TenThousandCasesOnEightThreadsGiveTheReportOfOne) {
  const Recipe recipe = large_recipe(kCases);
  // Answers on a connection that stays, so that a case costs a request and no more.
  test::LoopbackServer server([](const test::LoopbackRequest& request, test::LoopbackConnection& connection) {
    const Json body = parse_json(request.body, "request").value();
    const std::string user = body["messages"].back()["content"];
    const std::string events = test::chat_events({.content = "You asked me to " + user + "."});
    connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: " +
                    std::to_string(events.size()) + "\r\n\r\n" + events);
  });
  Side side;
  side.endpoint.url = server.url();
  side.endpoint.model = "scripted";
  const auto timeless = [&](int jobs) {
    const auto records = play_recipe(recipe, side, {.jobs = jobs});
    EXPECT_TRUE(records.ok()) << records.status().text();
    Json json = to_json(report_of(recipe, *records, {}).value());
    json.erase("latency");
    return json;
  };
  const Json of_one = timeless(1);
  EXPECT_EQ(of_one["overall"]["n"], kCases);
  EXPECT_EQ(of_one["overall"]["passed"], kCases - kCases / 5);
  EXPECT_EQ(timeless(8), of_one);
}

}  // namespace
}  // namespace nibble::gate

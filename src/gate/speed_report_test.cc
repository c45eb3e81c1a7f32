#include "gate/speed_report.h"

#include <gtest/gtest.h>

#include "gate/chat_stream.h"
#include "gate/speed_html.h"
#include "gate/speed_prompts.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

// A reply whose answer comes in deltas at these times.
StreamedReply reply_at(std::vector<double> answer_ms, int64_t tokens = -1) {
  StreamedReply said;
  said.times.headers_ms = 1;
  said.times.first_chunk_ms = answer_ms.front();
  said.times.first_answer_ms = answer_ms.front();
  said.times.end_ms = answer_ms.back();
  said.times.answer_ms = std::move(answer_ms);
  said.usage.completion_tokens = tokens;
  return said;
}

SpeedRecord record_of(Sweep sweep, int64_t size, double begin_ms, StreamedReply said) {
  SpeedRecord record{.sweep = sweep, .size = size, .begin_ms = begin_ms};
  record.end_ms = begin_ms + said.times.end_ms;
  record.said = std::move(said);
  return record;
}

TEST(SpeedTiming, HasPercentilesByNearestRank) {
  std::vector<double> values;
  for (int i = 20; i >= 1; --i) values.push_back(i);
  const Timing spread = timing(values);
  EXPECT_EQ(spread.spread.n, 20);
  EXPECT_EQ(spread.spread.p50, 10);
  EXPECT_EQ(spread.spread.p95, 19);
  EXPECT_EQ(spread.spread.max, 20);
  EXPECT_LE(spread.median.low, 10);
  EXPECT_GE(spread.median.high, 10);
  EXPECT_EQ(timing({}).spread.n, 0);
  EXPECT_EQ(timing({5}).median.low, 5);
}

TEST(SpeedTiming, FlagsWhatDriftsBetweenTheThirds) {
  const std::vector<double> steady = {100, 103, 97, 100, 101, 99, 100, 104, 98};
  EXPECT_NEAR(timing(steady).drift, 0, 1e-12);
  EXPECT_FALSE(timing(steady).drifts());
  const std::vector<double> slower = {100, 100, 100, 105, 105, 105, 112, 111, 113};
  EXPECT_NEAR(timing(slower).drift, 0.12, 1e-12);
  EXPECT_TRUE(timing(slower).drifts());
  const std::vector<double> faster = {100, 100, 100, 95, 95, 95, 80, 80, 80};
  EXPECT_NEAR(timing(faster).drift, -0.2, 1e-12);
  EXPECT_TRUE(timing(faster).drifts());
  // A spike is no drift, and eight values tell nothing.
  EXPECT_FALSE(timing({100, 100, 100, 900, 100, 100, 100, 900, 100}).drifts());
  EXPECT_EQ(timing({1, 1, 1, 1, 9, 9, 9, 9}).drift, 0);
}

TEST(SpeedTiming, DrawsGroupsWhole) {
  // Two replies, one of fast and one of slow tokens: a draw has both, or one of them twice.
  const Timing spread = timing_of_groups({{1, 1, 1, 1, 1}, {}, {9, 9, 9, 9, 9}});
  EXPECT_EQ(spread.spread.n, 10);
  EXPECT_EQ(spread.spread.p50, 1);
  EXPECT_EQ(spread.median.low, 1);
  EXPECT_EQ(spread.median.high, 9);
}

TEST(BetweenTokens, KeepsBursts) {
  // A token a delta, two of which arrive together.
  EXPECT_EQ(between_tokens_ms(reply_at({10, 30, 30, 50}, 4)), (std::vector<double>{20, 0, 20}));
  // The end of the reply may be counted as a token.
  EXPECT_EQ(between_tokens_ms(reply_at({10, 30, 50}, 4)), (std::vector<double>{20, 20}));
  // Three tokens a delta.
  EXPECT_EQ(between_tokens_ms(reply_at({10, 40, 70, 100}, 12)), (std::vector<double>{10, 10, 10}));
  // Reasoning is no part of the answer, and what is not counted is a token a delta.
  StreamedReply thought = reply_at({10, 30, 50}, 103);
  thought.usage.reasoning_tokens = 100;
  EXPECT_EQ(between_tokens_ms(thought), (std::vector<double>{20, 20}));
  EXPECT_EQ(between_tokens_ms(reply_at({10, 30, 50})), (std::vector<double>{20, 20}));
  EXPECT_TRUE(between_tokens_ms(reply_at({10}, 1)).empty());
}

TEST(SpeedReport, MeasuresGrowthByTheMiddlesOfTurns) {
  SpeedRun run;
  for (int64_t conversation = 0; conversation < 3; ++conversation) {
    for (int64_t turn = 1; turn <= 20; ++turn) {
      // The first turn is cold, and in neither middle.
      const double ms = turn == 1 ? 5000 : turn <= 4 ? 40 : turn < 16 ? 70 : 100;
      run.records.push_back(record_of(Sweep::conversation, turn, 0, reply_at({ms, ms + 10})));
    }
  }
  const Growth growth = speed_report(run).growth;
  EXPECT_EQ(growth.early.spread.n, 9);
  EXPECT_EQ(growth.late.spread.n, 15);
  EXPECT_EQ(growth.all.spread.n, 57);
  EXPECT_EQ(growth.all.spread.max, 100);
  EXPECT_DOUBLE_EQ(growth.ratio, 2.5);
  EXPECT_DOUBLE_EQ(growth.interval.low, 2.5);
  EXPECT_DOUBLE_EQ(growth.interval.high, 2.5);
  // Without turns 16 to 20 there is none.
  std::erase_if(run.records, [](const SpeedRecord& record) { return record.size >= 16; });
  EXPECT_EQ(speed_report(run).growth.ratio, 0);
}

TEST(SpeedReport, AddsUpClientsOverTheirCommonTime) {
  SpeedRun run;
  // Two clients, two replies of 100 ms and 11 tokens each: 200 ms, 44 tokens.
  for (const double begin : {0.0, 0.0, 100.0, 100.0}) {
    run.records.push_back(record_of(Sweep::concurrency, 2, begin, reply_at({50, 100}, 11)));
  }
  SpeedRecord broken{.sweep = Sweep::concurrency, .size = 2, .begin_ms = 100, .end_ms = 150, .error = "broke off"};
  run.records.push_back(broken);
  broken.counted = false;
  run.records.push_back(broken);
  const SpeedReport report = speed_report(run);
  ASSERT_EQ(report.points.size(), 1u);
  const SpeedPoint& point = report.points[0];
  EXPECT_EQ(point.reply_ms.spread.n, 4);
  EXPECT_EQ(point.failed, 1);
  EXPECT_EQ(point.why, "broke off");
  EXPECT_DOUBLE_EQ(point.tok_s, 220);
  EXPECT_DOUBLE_EQ(point.in_flight, 450.0 / 200);
  EXPECT_DOUBLE_EQ(point.decode_tok_s.spread.p50, 200);  // 10 tokens in 50 ms
  EXPECT_EQ(report.requests, 5);
  EXPECT_EQ(report.failed, 1);
}

TEST(SpeedReport, SaysWhatTheReaderMustKnow) {
  SpeedRun run;
  run.skipped = {"context 32768: too long"};
  StreamedReply cached = reply_at({10, 20}, 2);
  cached.usage.prompt_tokens = 100;
  cached.usage.cached_tokens = 90;
  run.records.push_back(record_of(Sweep::context, 100, 0, cached));
  cached.usage.cached_tokens = 0;
  run.records.push_back(record_of(Sweep::context, 100, 0, cached));
  run.records.back().warm = true;
  run.records.push_back(record_of(Sweep::output, 512, 0, reply_at({10, 20}, 2)));
  const SpeedReport report = speed_report(run);
  std::string all;
  for (const std::string& remark : report.remarks) all += remark + "\n";
  for (const char* text :
       {"left out: context 32768: too long", "sizes of prompts are estimates",
        "100 tokens, new prefix: 90 % came from the server's cache",
        "100 tokens, known prefix: only 0 % came from the server's cache", "up to 512 tokens: the replies have 2"}) {
    EXPECT_NE(all.find(text), std::string::npos) << text << "\n" << all;
  }
}

TEST(SpeedReport, WritesAPageThatLoadsNothing) {
  const test::TemporaryFolder folder;
  SpeedRun run;
  run.skipped = {"context 9: <script>alert(1)</script>"};
  for (const int64_t size : {128, 512}) {
    run.records.push_back(record_of(Sweep::context, size, 0, reply_at({20, 40, 60}, 3)));
  }
  SpeedReport report = speed_report(run);
  report.run = {{"model", "<b>m</b>"}, {"seed", 7}};
  ASSERT_TRUE(write_speed_html(folder.path() / "bench.html", report).ok());
  const std::string page = read_file(folder.path() / "bench.html").value();
  EXPECT_EQ(page.find("<script>"), std::string::npos);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_NE(page.find("prefers-color-scheme: dark"), std::string::npos);
  EXPECT_NE(page.find("<figure><svg"), std::string::npos);
  EXPECT_NE(page.find("512 tokens, new prefix"), std::string::npos);
  EXPECT_EQ(page.find("</html>\n"), page.size() - 8);

  ASSERT_TRUE(write_speed_json(folder.path() / "bench.json", report, run).ok());
  const auto json = parse_json(read_file(folder.path() / "bench.json").value(), "bench.json");
  ASSERT_TRUE(json.ok()) << json.status().text();
  EXPECT_EQ((*json)["records"].size(), 2u);
  EXPECT_EQ((*json)["records"][0]["ms"]["answer"], Json({20, 40, 60}));
  EXPECT_EQ((*json)["context"][1]["ttfat_ms"]["p50"], 20);
  EXPECT_EQ((*json)["figures"][0]["id"], "ttfat_cold_128");
}

TEST(SpeedPrompts, LieOnALineThroughTwoCounts) {
  const PromptSizes sizes = PromptSizes::through(60, 100, 240, 370);
  EXPECT_TRUE(sizes.measured);
  EXPECT_DOUBLE_EQ(sizes.per_word, 1.5);
  EXPECT_DOUBLE_EQ(sizes.base, 10);
  EXPECT_EQ(sizes.words(160), 100);
  EXPECT_EQ(sizes.words(3), 1);
  EXPECT_FALSE(PromptSizes::through(60, -1, 240, -1).measured);
  EXPECT_FALSE(PromptSizes::through(60, 50, 240, 50).measured);  // a server that cuts
}

TEST(SpeedPrompts, ComeNearerByWordsOrDigits) {
  const PromptSizes sizes = PromptSizes::through(60, 400, 240, 1480);  // 6 tokens a word
  EXPECT_EQ(sizes.nearer({10, 0}, 7), (PromptShape{10, 7}));
  EXPECT_EQ(sizes.nearer({10, 7}, -3), (PromptShape{10, 4}));
  EXPECT_EQ(sizes.nearer({10, 0}, -1), (PromptShape{8, 11}));
  EXPECT_EQ(sizes.nearer({10, 4}, 33), (PromptShape{15, 7}));
  EXPECT_EQ(sizes.nearer({2, 0}, -60), (PromptShape{1, 0}));
}

TEST(SpeedPrompts, ShareAPrefixOrNothing) {
  const PromptShape shape{30};
  const Json a = sized_messages(1, 5, 1, shape), again = sized_messages(1, 5, 1, shape),
             b = sized_messages(1, 5, 2, shape), other = sized_messages(1, 6, 1, shape),
             seed = sized_messages(2, 5, 1, shape);
  EXPECT_EQ(a, again);
  EXPECT_EQ(a[0], b[0]);
  EXPECT_NE(a[1], b[1]);
  const auto first_line = [](const Json& messages) {
    const auto text = messages[0]["content"].get<std::string>();
    return text.substr(0, text.find('\n'));
  };
  EXPECT_NE(first_line(a), first_line(other));
  EXPECT_NE(first_line(a), first_line(seed));
  EXPECT_EQ(dump(a).size(), dump(other).size());
  EXPECT_EQ(dump(sized_messages(1, 5, 1, {30, 4})).size(), dump(a).size() + 4);
  EXPECT_EQ(voice_line(1), voice_line(21));
}

}  // namespace
}  // namespace nibble::gate

// nibble bench --endpoint: the real binary against a server over a script.
#include <gtest/gtest.h>
#include <signal.h>

#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/replay_server.h"

namespace nibble::test {
namespace {

constexpr const char* kScript =
    R"({"chunks": [{"text": "It is", "delay_ms": 2}, {"text": " a quiet", "delay_ms": 2}, {"text": " evening.", "delay_ms": 2}]})";

TEST(BenchEndpoint, MeasuresAServerAndKeepsTheRun) {
  const ReplayServer server(kScript);
  const Scratch scratch;
  const std::string folder = (scratch / "runs/speed").string(), store = (scratch / "runs").string();
  const Outcome outcome = nibble_command({"bench", "--endpoint", server.url(), "--quick", "--contexts", "256,1024",
                                          "--concurrency", "1,2", "--requests", "3", "--json", "--output", folder});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  const auto printed = parse_json(outcome.out, "output");
  ASSERT_TRUE(printed.ok()) << printed.status().text();
  EXPECT_EQ((*printed)["run"]["model"], "replay");
  EXPECT_TRUE((*printed)["complete"].get<bool>());
  EXPECT_EQ((*printed)["context"].size(), 4u);
  EXPECT_EQ((*printed)["conversation"].size(), 20u);
  EXPECT_EQ((*printed)["concurrency"].size(), 2u);
  EXPECT_GT((*printed)["growth"]["ratio"].get<double>(), 0);
  EXPECT_GE((*printed)["context"][0]["ttfat_ms"]["p50"].get<double>(), 2);
  // The sizes were met, with a new prefix and a known one, and the server's own times are beside ours.
  for (const size_t i : {0, 1}) EXPECT_EQ((*printed)["context"][i]["prompt_tokens"], 256) << i;
  for (const size_t i : {2, 3}) EXPECT_EQ((*printed)["context"][i]["prompt_tokens"], 1024) << i;
  EXPECT_TRUE((*printed)["context"][0].contains("server_prompt_ms"));

  const auto kept = parse_json(read_file(Path(folder) / "bench.json").value(), "bench.json");
  ASSERT_TRUE(kept.ok()) << kept.status().text();
  EXPECT_EQ((*kept)["figures"], (*printed)["figures"]);
  EXPECT_GT((*kept)["records"].size(), 30u);
  EXPECT_NE(read_file(Path(folder) / "bench.html").value().find("turn of the conversation"), std::string::npos);

  const Outcome shown = nibble_command({"runs", "show", "speed", "--store", store});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_NE(shown.out.find("ttfat_growth"), std::string::npos) << shown.out;
  const Outcome card = nibble_command({"card", folder});
  EXPECT_EQ(card.exit_code, 0) << card.err;
  EXPECT_NE(card.out.find("first token of an answer, 256 tokens, known prefix"), std::string::npos) << card.out;
}

TEST(BenchEndpoint, PrintsTables) {
  const ReplayServer server(kScript);
  const Outcome outcome =
      nibble_command({"bench", "--endpoint", server.url(), "--quick", "--sweeps", "concurrency", "--concurrency", "2"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* text : {"Concurrency", "2 clients", "in flight", "the very first token came after"}) {
    EXPECT_NE(outcome.out.find(text), std::string::npos) << text << "\n" << outcome.out;
  }
}

TEST(BenchEndpoint, SaysWhatIsWrong) {
  const Scratch scratch;
  const std::string folder = (scratch / "runs/none").string();
  const Outcome nobody = nibble_command({"bench", "--endpoint", "http://127.0.0.1:1", "--output", folder});
  EXPECT_EQ(nobody.exit_code, 2);
  EXPECT_NE(nobody.err.find("unavailable"), std::string::npos) << nobody.err;
  EXPECT_FALSE(std::filesystem::exists(Path(folder) / "bench.json"));

  const ReplayServer refusing(R"({"refuse": true})");
  EXPECT_EQ(nibble_command({"bench", "--endpoint", refusing.url(), "--quick"}).exit_code, 2);

  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"bench", "--http"},
                                             {"bench", "--quick", "somewhere"},
                                             {"bench", "--endpoint", "http://127.0.0.1:1", "somewhere"},
                                             {"bench", "--endpoint", "http://127.0.0.1:1", "--random", "0.8b"},
                                             {"bench", "--endpoint", "http://127.0.0.1:1", "--sweeps", "everything"}}) {
    EXPECT_EQ(nibble_command(arguments).exit_code, 2);
  }
}

// 429 in the middle of the run is a failure that the report counts.
TEST(BenchEndpoint, CountsRefusals) {
  const ReplayServer server(std::string(R"({"match": {"index": 5}, "refuse": true})") + "\n" + kScript);
  const Outcome outcome =
      nibble_command({"bench", "--endpoint", server.url(), "--quick", "--sweeps", "output", "--json"});
  EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
  const auto json = parse_json(outcome.out, "output");
  ASSERT_TRUE(json.ok()) << json.status().text();
  EXPECT_EQ((*json)["infra"]["failed"], 1);
  EXPECT_TRUE((*json)["complete"].get<bool>());
}

TEST(BenchEndpoint, CtrlCKeepsWhatWasMeasured) {
  const ReplayServer server(R"({"chunks": [{"text": "Well.", "delay_ms": 50}]})");
  const Scratch scratch;
  const Path folder = scratch / "speed";
  EXPECT_EQ(nibble_signalled({"bench", "--endpoint", server.url(), "--output", folder.string()}, 2, SIGINT, folder),
            130);
  const auto json = parse_json(read_file(folder / "bench.json").value(), "bench.json");
  ASSERT_TRUE(json.ok()) << json.status().text();
  EXPECT_FALSE((*json)["complete"].get<bool>());
  EXPECT_EQ((*json)["infra"]["failed"], 0);
  EXPECT_GT((*json)["infra"]["requests"].get<int64_t>(), 0);
}

TEST(Bench, ProfilesOps) {
  const std::vector<std::string> command = {"bench", "models/tiny-voice", "--depths", "70",       "--decode",
                                            "4",     "--repeats",         "1",        "--profile"};
  const Outcome tables = nibble_command(command);
  ASSERT_EQ(tables.exit_code, 0) << tables.err;
  for (const char* text : {"prompt of 70", "a step after 70 tokens", "delta mixer", "gate+up", "as it runs"}) {
    EXPECT_NE(tables.out.find(text), std::string::npos) << text << "\n" << tables.out;
  }
  std::vector<std::string> with_json = command;
  with_json.emplace_back("--json");
  const Outcome outcome = nibble_command(with_json);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto printed = parse_json(outcome.out, "output");
  ASSERT_TRUE(printed.ok()) << printed.status().text();
  for (const char* pass : {"prompt", "step"}) {
    const Json& table = (*printed)["points"][0]["profile"][pass];
    double us = table["rest_us"].get<double>();
    for (const Json& op : table["ops"]) us += op["us"].get<double>();
    EXPECT_NEAR(us, table["whole_us"].get<double>(), 1e-6 * us);
  }
  EXPECT_EQ(nibble_command({"bench", "--endpoint", "http://127.0.0.1:1", "--profile"}).exit_code, 2);
}

TEST(BenchProject, SaysWhatAMachineThatIsNotHereCouldDo) {
  const std::vector<std::string> command = {"bench", "--random", "9b", "--format", "nvfp4", "--project", "gb10"};
  const Outcome table = nibble_command(command);
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("projected for NVIDIA GB10 (DGX Spark), not measured"), std::string::npos) << table.out;

  const Scratch scratch;
  const std::string report = (scratch / "report.json").string();
  ASSERT_TRUE(write_file(report, R"({"speech": [{"depth": 128, "sequences": 1, "share_of_probe": 0.8}]})").ok());
  std::vector<std::string> with_report = command;
  with_report.insert(with_report.end(), {"--depths", "128,2048", "--batches", "8", "--measured", report, "--json"});
  const Outcome outcome = nibble_command(with_report);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto printed = parse_json(outcome.out, "output");
  ASSERT_TRUE(printed.ok()) << printed.status().text();
  EXPECT_TRUE((*printed)["projected"].get<bool>());
  EXPECT_EQ((*printed)["share_source"], report);
  ASSERT_EQ((*printed)["speech"].size(), 3u);
  for (const Json& step : (*printed)["speech"]) {
    EXPECT_NEAR(step["tok_s"].get<double>(), 0.8 * step["ceiling_tok_s"].get<double>(), 1e-6);
  }

  ASSERT_TRUE(write_file(report, "{}").ok());
  const Outcome refused = nibble_command(with_report);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("found no \"speech\""), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace nibble::test

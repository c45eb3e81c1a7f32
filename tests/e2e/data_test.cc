// nibble data: what is wrong with a file, what would be trained, and files cut without leaking.
#include <gtest/gtest.h>

#include <fstream>

#include "io/json.h"
#include "synth/draw.h"
#include "tests/support/command.h"

namespace nibble::test {
namespace {

const std::string kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";
const std::string kValid = NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl";

TEST(Data, CheckShowsWhatIsTrained) {
  const Outcome outcome = nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--show", "1"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("<|im_start|>assistant\n<think>\n\n</think>\n\n[["), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("<|im_end|>]]"), std::string::npos);
  const Outcome json = nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--json"});
  const auto report = parse_json(json.out, "report");
  ASSERT_TRUE(report.ok()) << json.out << json.err;
  EXPECT_EQ((*report)["records"], 300);
  EXPECT_EQ((*report)["bad"], 0);
  EXPECT_GT((*report)["loss_tokens"], 1000);
}

TEST(Data, CheckNamesBadLines) {
  const Scratch dir;
  const Path file = dir / "bad.jsonl";
  std::ofstream(file) << R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
                         "\n"
                      << R"({"messages": [{"role": "robot", "content": "a"}]})"
                         "\n";
  const Outcome outcome = nibble_command({"data", "check", file.string(), "--model", kTinyVoice});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.out.find("bad.jsonl:2: messages[0].role: expected system, developer, user, assistant or tool"),
            std::string::npos)
      << outcome.out << outcome.err;
  EXPECT_EQ(nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--loss-kinds", "header"}).exit_code, 2);
}

TEST(Data, SplitAndDedupeWriteFiles) {
  const Scratch dir;
  const std::string output = (dir / "split").string();
  const Outcome split = nibble_command({"data", "split", kValid, "--valid", "0.2", "--output", output, "--json"});
  ASSERT_EQ(split.exit_code, 0) << split.err;
  const auto report = parse_json(split.out, "report");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ((*report)["train"].get<int>() + (*report)["valid"].get<int>(), 300);
  const std::string twice = (dir / "twice.jsonl").string();
  std::ofstream(twice) << std::ifstream(kValid).rdbuf() << std::ifstream(kValid).rdbuf();
  const Outcome dedupe = nibble_command({"data", "dedupe", twice, "--output", (dir / "once.jsonl").string()});
  EXPECT_EQ(dedupe.exit_code, 0) << dedupe.err;
  EXPECT_EQ(*read_file(dir / "once.jsonl"), *read_file(kValid));
}

TEST(Data, StatsCount) {
  const Outcome outcome = nibble_command({"data", "stats", kValid, "--model", kTinyVoice, "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json stats = parse_json(outcome.out, "stats").value();
  EXPECT_EQ(stats["records"], 300);
  EXPECT_EQ(stats["bad"], 0);
  EXPECT_EQ(stats["with_thinking"], 0);
  EXPECT_GT(stats["tools"]["search_memory"], 10);
  EXPECT_FALSE(stats["tokens"]["estimated"].get<bool>());
  EXPECT_EQ(nibble_command({"data", "stats", kValid}).exit_code, 0);
}

// The small world's users have few words: much of their text is in its cases.
TEST(Data, CheckFindsPromptsOfTheGates) {
  const std::string cases = NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl";
  const Outcome overlap =
      nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--show", "0", "--holdout", cases});
  EXPECT_EQ(overlap.exit_code, 2);
  EXPECT_NE(overlap.out.find("valid.jsonl:"), std::string::npos) << overlap.out;
  const Outcome none =
      nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--show", "0", "--holdout", "nothing"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_NE(none.err.find("not found"), std::string::npos) << none.err;
}

// Without a word about it, overlap with the bundled gates is told, and no error.
TEST(Data, CheckReportsPromptsOfTheBundledGates) {
  const Outcome told = nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--json"});
  EXPECT_EQ(told.exit_code, 0);
  const Json holdout = parse_json(told.out, "check").value()["holdout"];
  EXPECT_EQ(holdout["key"], "user_text");
  EXPECT_GT(holdout["records"], 0);  // "Who am I?"
  EXPECT_EQ(holdout["errors"], 0);
  const Outcome stats = nibble_command({"data", "stats", kValid, "--json"});
  EXPECT_EQ(parse_json(stats.out, "stats").value()["holdout"]["records"], holdout["records"]);
  EXPECT_EQ(nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--holdout", "companion"}).exit_code, 2);
}

// A recipe names its key. That of the bundled world is a pair of entities: shared words are counted, a pair is refused.
TEST(Data, ARecipeNamesWhatIsHeldOut) {
  const Scratch dir;
  const std::string cases = NIBBLE_SOURCE_DIR "/tests/golden/data/cases.jsonl", file = (dir / "rows.jsonl").string();
  const auto write = [&](const char* a, const char* b) {
    const Json row = {
        {"messages",
         {{{"role", "user"}, {"content", "Who am I?"}}, {{"role", "assistant"}, {"content", "You are Leela."}}}},
        {"meta", {{"pairs", Json::array({Json::array({a, b})})}}}};
    std::ofstream(file) << row.dump() << "\n";
  };
  const auto check = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> words = {"data", "check", file, "--model", kTinyVoice, "--show", "0", "--json"};
    words.insert(words.end(), flags.begin(), flags.end());
    return nibble_command(words);
  };
  std::vector<std::string> held, free;  // some names, by the side that chance put them on
  for (int i = 0; held.empty() || free.empty(); ++i) {
    const std::string name = "topic" + std::to_string(i);
    (synth::held_out_pair("Arun", name) ? held : free).push_back(name);
  }
  write("Arun", free[0].c_str());
  const Outcome shared = check({"--recipe", "small_world", "--holdout", cases});
  EXPECT_EQ(shared.exit_code, 0) << shared.out << shared.err;
  const Json told = parse_json(shared.out, "check").value()["holdout"];
  EXPECT_EQ(told["key"], "pairs");
  EXPECT_EQ(told["records"], 1);
  EXPECT_EQ(told["pair_records"], 0);
  EXPECT_EQ(check({"--recipe", "companion"}).exit_code, 2);  // whose key is the text
  write("Arun", held[0].c_str());
  const Outcome pair = check({"--recipe", "small_world"});
  EXPECT_EQ(pair.exit_code, 2) << pair.out;
  EXPECT_EQ(parse_json(pair.out, "check").value()["holdout"]["errors"], 1);
  EXPECT_EQ(check({"--recipe", "companion"}).exit_code, 2);
  for (const char* verb : {"split", "dedupe"}) {
    const Path output = dir / verb;
    const Outcome refused =
        nibble_command({"data", verb, file, "--output", output.string(), "--recipe", "small_world"});
    EXPECT_EQ(refused.exit_code, 2) << verb;
    EXPECT_NE(refused.err.find("rows.jsonl:1: Arun and " + held[0]), std::string::npos) << refused.err;
    EXPECT_FALSE(std::filesystem::exists(output));
  }
}

}  // namespace
}  // namespace nibble::test

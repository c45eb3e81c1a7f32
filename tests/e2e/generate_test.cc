// nibble generate, as a user runs it: teachers good, bad and poor, kills and interrupts, and the bundled model as
// teacher.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "base/clock.h"
#include "base/rng.h"
#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/replay_teacher.h"

extern char** environ;

namespace nibble::test {
namespace {

const Path kSource = NIBBLE_SOURCE_DIR;
const std::string kTinyVoice = kSource / "models/tiny-voice";

std::vector<std::string> generate(const std::string& recipe, const std::string& url, const Path& output,
                                  std::vector<std::string> flags = {}) {
  std::vector<std::string> words = {"generate",        recipe,   "--teacher", url,
                                    "--teacher-model", "replay", "--output",  output.string()};
  words.insert(words.end(), flags.begin(), flags.end());
  return words;
}

std::vector<Json> rows_of(const Path& file) {
  std::vector<Json> rows;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) rows.push_back(parse_json(line, "row").value());
  return rows;
}

// A bundled recipe as a file of its own, each quota times a share.
Path smaller(const Scratch& dir, const std::string& name, double share) {
  const Path folder = kSource / "recipes/generate";
  Json recipe = parse_json(read_file(folder / (name + ".json")).value(), name).value();
  for (Json& one : recipe["categories"]) one["quota"] = static_cast<int64_t>(one["quota"].get<double>() * share);
  std::ofstream(dir / (name + ".json")) << recipe.dump();
  return dir / (name + ".json");
}

TEST(Generate, AMisbehavingTeacherGivesAWholeCompanion) {
  const Scratch dir;
  const Path output = dir / "chats.jsonl";
  ReplayTeacher teacher({.faults = true}, {.storm = 5, .drop_every = 6, .stall_s = 3});
  const Outcome outcome = nibble_command(generate("companion", teacher.url(), output, {"--idle-timeout", "1"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  std::map<std::string, int> counts;
  for (const Json& row : rows_of(output)) ++counts[row["category"].get<std::string>()];
  EXPECT_EQ(counts, (std::map<std::string, int>{{"topic_switching", 200},
                                                {"direct_action", 200},
                                                {"concise_voice", 200},
                                                {"honest_memory", 100},
                                                {"user_context", 100},
                                                {"kannada_culture", 100},
                                                {"mixed", 100}}));
  const Json manifest = parse_json(read_file(output.string() + ".manifest.json").value(), "manifest").value();
  EXPECT_EQ(manifest["conversations"], 1000);
  const Outcome check = nibble_command(
      {"data", "check", output.string(), "--model", kTinyVoice, "--show", "0", "--holdout", "companion"});
  EXPECT_EQ(check.exit_code, 0) << check.out << check.err;
  const Outcome stats = nibble_command({"data", "stats", output.string(), "--json"});
  const Json figures = parse_json(stats.out, "stats").value();
  EXPECT_EQ(figures["records"], 1000);
  EXPECT_EQ(figures["bad"], 0);
  EXPECT_EQ(figures["duplicates"], 0);
  EXPECT_EQ(figures["with_thinking"], 0);
  EXPECT_EQ(figures["with_markdown"], 0);
  EXPECT_GE(figures["with_calls"], 200);
}

TEST(Generate, APoorTeacherIsNamedAndNothingIsWritten) {
  const Scratch dir;
  const Path output = dir / "chats.jsonl";
  ReplayTeacher teacher({.held = 7, .short_category = "user_context"});
  const Outcome outcome = nibble_command(generate(smaller(dir, "companion", 0.1).string(), teacher.url(), output));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.out.find("user_context: 7 of 10 conversations, 3 short"), std::string::npos)
      << outcome.out << outcome.err;
  EXPECT_FALSE(std::filesystem::exists(output));
  EXPECT_FALSE(std::filesystem::exists(output.string() + ".manifest.json"));
}

// Killed at random moments and taken up until it is done: the bytes of an undisturbed run.
TEST(Generate, KilledTwentyTimes) {
  const Scratch dir;
  const std::string recipe = smaller(dir, "companion", 0.3).string();
  ReplayTeacher teacher({.faults = true}, {.delay_s = 0.03});
  const Stopwatch watch;
  ASSERT_EQ(nibble_command(generate(recipe, teacher.url(), dir / "whole.jsonl")).exit_code, 0);
  const double whole_s = watch.seconds();
  const std::string expected = read_file(dir / "whole.jsonl").value();
  Rng rng(5);
  int kills = 0;
  for (int run = 0; kills < 20 && run < 20; ++run) {
    const Path output = dir / ("killed-" + std::to_string(run) + ".jsonl");
    const int killed = run_killed(generate(recipe, teacher.url(), output, {"--resume"}), whole_s, 8, rng);
    ASSERT_GE(killed, 0) << run;
    kills += killed;
    EXPECT_EQ(read_file(output).value(), expected) << run;
  }
  EXPECT_GE(kills, 20);
}

TEST(Generate, CtrlCIsGraceful) {
  const Scratch dir;
  const std::string recipe = smaller(dir, "companion", 0.3).string();
  ReplayTeacher teacher({}, {.delay_s = 1});
  const Path output = dir / "chats.jsonl";
  EXPECT_EQ(nibble_signalled(generate(recipe, teacher.url(), output), 0.5, SIGINT, output.string() + ".journal"), 130);
  EXPECT_FALSE(std::filesystem::exists(output));
  EXPECT_EQ(nibble_command(generate(recipe, teacher.url(), output)).exit_code, 2);  // without --resume
  const Outcome rest = nibble_command(generate(recipe, teacher.url(), output, {"--resume"}));
  EXPECT_EQ(rest.exit_code, 0) << rest.out << rest.err;
}

TEST(Generate, PreviewWritesNothing) {
  const Scratch dir;
  ReplayTeacher teacher({});
  std::vector<std::string> words = {"generate",        "companion", "--teacher", teacher.url(),
                                    "--teacher-model", "replay",    "--preview", "5"};
  const Outcome outcome = nibble_command(words);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("5 conversations, nothing was written"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("direct_action (would be accepted)"), std::string::npos) << outcome.out;
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Generate, ACommandIsATeacher) {
  const Scratch dir;
  std::ofstream(dir / "r.json")
      << R"({"kind": "write", "system": "You are Annie, and you speak in short plain sentences to whom you know.",
    "prompt": "Kind ({category}, batch {batch}): {count}", "repair": "{rows}", "set": {"tool_calls": 0}, "rules": {"tokens": [1, 2048]},
    "categories": [{"id": "talk", "quota": 2, "brief": "talk"}]})";
  std::ofstream(dir / "answer")
      << R"([{"messages": [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "It is ten."}]},
    {"messages": [{"role": "user", "content": "Where is my hat?"}, {"role": "assistant", "content": "On the chair."}]}])";
  const Path output = dir / "chats.jsonl";
  const std::string command = "cat > " + (dir / "prompt").string() + "; cat " + (dir / "answer").string();
  const Outcome outcome = nibble_command(
      {"generate", (dir / "r.json").string(), "--teacher-command", command, "--output", output.string(), "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(rows_of(output).size(), 2U);
  EXPECT_EQ(read_file(dir / "prompt").value(), "Kind (talk, batch 1): 3");
  EXPECT_EQ(parse_json(outcome.out, "summary").value()["conversations"], 2);
}

TEST(Generate, SaysWhatIsMissing) {
  const Scratch dir;
  EXPECT_EQ(nibble_command({"generate", "companion", "--output", (dir / "x").string()}).exit_code, 2);
  EXPECT_EQ(nibble_command({"generate", "companion", "--teacher-command", "cat"}).exit_code, 2);
  EXPECT_EQ(nibble_command({"generate", "nothing", "--teacher-command", "cat", "--preview", "1"}).exit_code, 2);
  const Outcome refused = nibble_command(generate("companion", "http://127.0.0.1:1", dir / "x", {"--retries", "0"}));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("--resume"), std::string::npos) << refused.err;
}

// models/tiny-voice behind the real server.
class TinyVoice {
 public:
  TinyVoice() {
    std::vector<std::string> words = {NIBBLE_BINARY, "serve", kTinyVoice, "--port", "0"};
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const Path log = dir_ / "log";
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT, 0600);
    EXPECT_EQ(::posix_spawn(&pid_, argv[0], &files, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&files);
    for (const Stopwatch watch; url_.empty() && watch.seconds() < 60;
         std::this_thread::sleep_for(std::chrono::milliseconds(50))) {
      const auto text = read_file(log);
      const size_t at = text.ok() ? text->find("http://127.0.0.1:") : std::string::npos;
      const size_t end = at == std::string::npos ? at : text->find_first_of(" \n/", at + 17);
      if (end != std::string::npos) url_ = text->substr(at, end - at);
    }
    EXPECT_FALSE(url_.empty());
  }
  ~TinyVoice() {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  TinyVoice(const TinyVoice&) = delete;
  TinyVoice& operator=(const TinyVoice&) = delete;
  const std::string& url() const { return url_; }

 private:
  Scratch dir_;
  pid_t pid_ = 0;
  std::string url_;
};

TEST(Generate, TheBundledModelTeachesItsWorld) {
  const Scratch dir;
  for (const char* file : {"small_world_data.json", "small_world_tools.json", "small_world_exchanges.json"}) {
    std::filesystem::copy_file(kSource / "recipes/generate" / file, dir / file);
  }
  const TinyVoice teacher;
  const Path output = dir / "world.jsonl";
  const Outcome outcome =
      nibble_command({"generate", smaller(dir, "small_world", 0.1).string(), "--teacher", teacher.url(),
                      "--teacher-model", "tiny-voice", "--model", kTinyVoice, "--output", output.string(), "--holdout",
                      (kSource / "tests/golden/data/cases.jsonl").string(), "--jobs", "2"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(rows_of(output).size(), 32U);
  const Outcome check = nibble_command({"data", "check", output.string(), "--model", kTinyVoice, "--show", "0"});
  EXPECT_EQ(check.exit_code, 0) << check.out << check.err;
}

}  // namespace
}  // namespace nibble::test

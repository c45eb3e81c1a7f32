// Killed at any moment, the same command goes on, and the bytes are those of an undisturbed run.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <map>
#include <thread>

#include "base/rng.h"
#include "tests/support/command.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::duration;
using Clock = std::chrono::steady_clock;

std::map<std::string, std::string> contents(const Path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder)] = *read_file(entry.path());
  }
  return files;
}

// Some seconds of work in twenty shards.
std::vector<std::string> arguments(const Path& output) {
  return {"quantize",     NIBBLE_SOURCE_DIR "/models/tiny-voice",
          "--strategy",   "mse",
          "--shard-size", "400KB",
          "--threads",    "1",
          "--output",     output.string()};
}

// Kills the command with these flags `times` times at random moments and lets it go on.
void expect_same_bytes(const std::vector<std::string>& flags, int times) {
  const Scratch scratch;
  const auto arguments = [&](const Path& output) {
    std::vector<std::string> words = flags;
    words.insert(words.end(), {"--output", output.string()});
    return words;
  };
  const auto start = Clock::now();
  ASSERT_EQ(nibble_command(arguments(scratch / "whole")).exit_code, 0);
  const double whole_s = duration<double>(Clock::now() - start).count();
  const std::map<std::string, std::string> expected = contents(scratch / "whole");

  constexpr uint64_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  Rng rng(kSeed);
  int resumed = 0;
  for (int i = 0; i < times; ++i) {
    const Path output = scratch / ("killed-" + std::to_string(i));
    const Path partial = output.string() + ".partial";
    const std::optional<int> code = nibble_signalled(arguments(output), whole_s * rng.uniform(), SIGKILL);
    if (code) {
      EXPECT_EQ(*code, 0);  // it was done already
    } else if (!fs::exists(output)) {
      for (const auto& [name, text] : fs::exists(partial) ? contents(partial) : expected) {
        resumed += name.ends_with(".safetensors") && fs::exists(partial) ? 1 : 0;
      }
      const Outcome rest = nibble_command(arguments(output));
      ASSERT_EQ(rest.exit_code, 0) << rest.err;
    }
    EXPECT_EQ(contents(output), expected) << i;
  }
  EXPECT_GT(resumed, 0) << "no moment left a finished file behind";
}

TEST(Resume, KilledAtTenRandomMoments) {
  std::vector<std::string> flags = arguments("");
  flags.resize(flags.size() - 2);
  expect_same_bytes(flags, 10);
}

// Layers that were solved are not solved again.
TEST(Resume, KilledWhileLayersAreSolved) {
  expect_same_bytes({"quantize", NIBBLE_SOURCE_DIR "/models/tiny-voice", "--strategy", "gptq", "--calib",
                     NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl", "--samples", "6", "--holdout", "none"},
                    4);
}

TEST(Resume, AnotherProcessIsToldToWait) {
  const Scratch scratch;
  const Path output = scratch / "out";
  std::thread first([&] { EXPECT_FALSE(nibble_signalled(arguments(output), 1.5, SIGKILL) == 2); });
  while (!fs::exists(output.string() + ".partial/job") && !fs::exists(output)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Outcome second = nibble_command(arguments(output));
  first.join();
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_NE(second.err.find("no other process writes"), std::string::npos) << second.err;
}

}  // namespace
}  // namespace nibble::test

// Whatever is wrong with a checkpoint: one line that says what, a hint, exit code 2, and nothing left behind.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "io/json.h"
#include "tests/support/command.h"

namespace nibble::test {
namespace {

namespace fs = std::filesystem;

struct Damage {
  const char* name;
  void (*apply)(const Path& dir);
  const char* message;  // must occur in the first line
};

std::string slurp(const Path& file) {
  return std::move(read_file(file)).value();
}

void spill(const Path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

constexpr const char* kShard1 = "model-00001-of-00002.safetensors";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";

// Replaces text in the header of a shard by text of the same length, so that all offsets stay right.
void patch_header(const Path& shard, std::string_view from, std::string_view to) {
  ASSERT_EQ(from.size(), to.size());
  std::string bytes = slurp(shard);
  const size_t at = bytes.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  bytes.replace(at, from.size(), to);
  spill(shard, bytes);
}

void patch_config(const Path& dir, void (*change)(Json& config)) {
  Json config = *parse_json(slurp(dir / "config.json"), "config.json");
  change(config);
  spill(dir / "config.json", config.dump());
}

const Damage kDamages[] = {
    {"EmptyFolder", [](const Path& d) { fs::remove_all(d), fs::create_directories(d); }, "config.json"},
    {"MissingFolder", [](const Path& d) { fs::remove_all(d); }, "not found"},
    {"TruncatedShard", [](const Path& d) { fs::resize_file(d / kShard1, fs::file_size(d / kShard1) - 1000); }, kShard1},
    {"HeaderOnlyShard", [](const Path& d) { fs::resize_file(d / kShard2, 4); }, kShard2},
    {"MissingShard", [](const Path& d) { fs::remove(d / kShard2); }, kShard2},
    {"WrongShape", [](const Path& d) { patch_header(d / kShard1, "\"shape\":[256,768]", "\"shape\":[768,256]"); },
     "expected [256,768]"},
    {"UnknownDtype", [](const Path& d) { patch_header(d / kShard1, "\"dtype\":\"BF16\"", "\"dtype\":\"I16\" "); },
     "I16"},
    {"UnknownModelType", [](const Path& d) { patch_config(d, [](Json& c) { c["model_type"] = "llama"; }); }, "llama"},
    {"BrokenConfig", [](const Path& d) { spill(d / "config.json", "{\"model_type\": "); }, "config.json"},
    {"HeadsThatDoNotDivide", [](const Path& d) { patch_config(d, [](Json& c) { c["linear_num_value_heads"] = 3; }); },
     "expected"},
    {"NotANumber",
     [](const Path& d) {  // the last bytes of a shard are bf16 weights: 0x7FC0 is NaN
       std::string bytes = slurp(d / kShard1);
       bytes[bytes.size() - 2] = '\xC0';
       bytes[bytes.size() - 1] = '\x7F';
       spill(d / kShard1, bytes);
     },
     "not finite"},
};

class BadInput : public testing::TestWithParam<Damage> {};

TEST_P(BadInput, OneLineAHintExitTwoNothingLeft) {
  const Scratch scratch;
  const Path dir = scratch / "model";
  fs::copy(NIBBLE_SOURCE_DIR "/models/tiny-voice", dir);
  GetParam().apply(dir);
  const Outcome outcome =
      nibble_command({"quantize", dir.string(), "--strategy", "max", "--output", (scratch / "out").string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.out, "");
  const std::string first = outcome.err.substr(0, outcome.err.find('\n'));
  EXPECT_NE(first.find(GetParam().message), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("\n  hint: "), std::string::npos) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 2) << outcome.err;
  const auto entries = std::distance(fs::directory_iterator(scratch.path()), {});
  EXPECT_EQ(entries, fs::exists(dir) ? 1 : 0) << "something was left behind";
}

INSTANTIATE_TEST_SUITE_P(Quantize, BadInput, testing::ValuesIn(kDamages),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(BadOutput, AFolderThatCannotBeWritten) {
  const Scratch scratch;
  // A file where a folder is needed: refused for every user, root included.
  spill(scratch / "file", "x");
  const Outcome outcome = nibble_command(
      {"quantize", NIBBLE_SOURCE_DIR "/models/tiny-voice", "--output", (scratch / "file" / "out").string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("file"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("\n  hint: "), std::string::npos) << outcome.err;
}

TEST(BadOutput, AReadOnlyFolder) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere; AFolderThatCannotBeWritten covers the message";
  const Scratch scratch;
  fs::create_directories(scratch / "locked");
  ::chmod((scratch / "locked").c_str(), 0555);
  const Outcome outcome = nibble_command(
      {"quantize", NIBBLE_SOURCE_DIR "/models/tiny-voice", "--output", (scratch / "locked" / "out").string()});
  ::chmod((scratch / "locked").c_str(), 0755);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("\n  hint: "), std::string::npos) << outcome.err;
}

TEST(BadOutput, AFolderWithFilesInIt) {
  const Scratch scratch;
  fs::create_directories(scratch / "out");
  spill(scratch / "out" / "precious", "x");
  const Outcome outcome =
      nibble_command({"quantize", NIBBLE_SOURCE_DIR "/models/tiny-voice", "--output", (scratch / "out").string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("expected a new or empty folder"), std::string::npos) << outcome.err;
  EXPECT_EQ(slurp(scratch / "out" / "precious"), "x");
}

TEST(BadFlags, EachIsExitTwoWithHelp) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"frobnicate"},
                                             {"quantize"},
                                             {"quantize", "x", "--strategy", "magic", "--output", "y"},
                                             {"bench", "--random", "3b"},
                                             {"bench", "--random", "0.8b", "--train"},
                                             {"bench"},
                                             {"serve"},
                                             {"serve", "--engine", "gpu"},
                                             {"serve", "--engine", "replay:"},
                                             {"serve", "--engine", "replay:x", "--act", "a4"},
                                             {"serve", NIBBLE_SOURCE_DIR "/models/tiny-voice", "--port", "x"}}) {
    EXPECT_EQ(nibble_command(words).exit_code, 2) << fmt::format("{}", fmt::join(words, " "));
  }
  for (const char* command : {"inspect", "quantize", "chat", "serve", "eval", "bench", "gate"}) {
    const Outcome help = nibble_command({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_GT(help.out.size(), 300u) << command;
  }
}

TEST(BadReplay, NamesFileAndLine) {
  const Scratch scratch;
  spill(scratch / "talk.jsonl", "{\"chunks\": []}\n{\"chunks\": [], \"delay\": 1}\n");
  const std::string file = (scratch / "talk.jsonl").string();
  const Outcome outcome = nibble_command({"serve", "--engine", "replay:" + file, "--port", "0"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.err.find("corrupt: " + file + ":2: expected a key among"), 0u) << outcome.err;
  EXPECT_EQ(nibble_command({"serve", "--engine", "replay:" + file + "x"}).exit_code, 2);
}

}  // namespace
}  // namespace nibble::test

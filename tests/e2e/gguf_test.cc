// GGUF files through the binary: out, in, back, and beside the folder they were made from.
#include <gtest/gtest.h>

#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

const std::string kModel = kTinyVoice.string(), kChats = NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl";

Json json_of(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const Result<Json> json = parse_json(outcome.out, "output");
  return json.ok() ? *json : Json::object();
}

class GgufCommand : public testing::Test {
 protected:
  std::string converted(const std::string& source, const char* name, std::vector<std::string> flags = {}) {
    const std::string out = (scratch_ / name).string();
    flags.insert(flags.begin(), {"convert", source, "--format", "gguf", "--output", out});
    const Outcome outcome = nibble_command(flags);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("NFC"), std::string::npos) << outcome.out;
    return out;
  }

  Scratch scratch_;
};

TEST_F(GgufCommand, Bf16IsTheFolderAndQ8IsClose) {
  const std::string bf16 = converted(kModel, "a.gguf"), q8 = converted(kModel, "q8.gguf", {"--gguf-type", "q8_0"});
  const Json eval = json_of(nibble_command({"eval", kModel, bf16, q8, "--data", kChats, "--limit", "3", "--json"}));
  ASSERT_EQ(eval["models"].size(), 2u) << eval.dump();
  EXPECT_EQ(eval["models"][0]["mean_kl"], 0);
  EXPECT_EQ(eval["models"][0]["format"], "bf16");
  EXPECT_EQ(eval["models"][1]["format"], "q8_0");
  EXPECT_GT(eval["models"][1]["mean_kl"].get<double>(), 0);
  EXPECT_LT(eval["models"][1]["mean_kl"].get<double>(), 0.001);
  // The file's own tokenizer and template make the same tokens of the same conversations.
  const Json other = json_of(nibble_command({"eval", bf16, q8, "--data", kChats, "--limit", "3", "--json"}));
  EXPECT_EQ(other["mean_kl"], eval["models"][1]["mean_kl"]);
}

TEST_F(GgufCommand, ChatsAsTheFolderDoes) {
  const std::string file = converted(kModel, "a.gguf");
  const auto say = [&](const std::string& model) {
    return json_of(nibble_command(
        {"chat", model, "--message", "Hello", "--temperature", "0", "--max-tokens", "12", "--json"}))["content"];
  };
  EXPECT_EQ(say(file), say(kModel));
  const Json inspect = json_of(nibble_command({"inspect", file, "--json", "--tensors"}));
  EXPECT_EQ(inspect["layers"], 8);
  EXPECT_EQ(inspect["tensors"]["BF16"]["count"], 2 + 6 * 5 + 2 * 4 + 8 * 3);
}

TEST_F(GgufCommand, Nvfp4KeepsWhatWasQuantized) {
  const std::string quantized = (scratch_ / "q").string();
  ASSERT_EQ(nibble_command({"quantize", kModel, "--output", quantized, "--strategy", "max"}).exit_code, 0);
  const std::string file = converted(quantized, "q.gguf");
  const Json eval = json_of(nibble_command({"eval", quantized, file, "--data", kChats, "--limit", "2", "--json"}));
  EXPECT_EQ(eval["mean_kl"], 0);
  EXPECT_EQ(eval["format"], "nvfp4");
}

TEST_F(GgufCommand, TheWayBackIsAFolderThatLoads) {
  const std::string file = converted(kModel, "a.gguf"), back = (scratch_ / "back").string();
  const Outcome made = nibble_command({"convert", file, "--format", "bf16", "--output", back, "--json"});
  EXPECT_EQ(json_of(made)["decoded"], 0);
  const Json eval = json_of(nibble_command({"eval", kModel, back, "--data", kChats, "--limit", "2", "--json"}));
  EXPECT_EQ(eval["mean_kl"], 0);
}

TEST_F(GgufCommand, RefusalsAreOneLineAndLeaveNothing) {
  const std::string file = converted(kModel, "a.gguf"), out = (scratch_ / "out").string();
  std::string bytes = *read_file(file);
  ASSERT_TRUE(write_file(scratch_ / "cut.gguf", std::string_view(bytes).substr(0, bytes.size() / 2)).ok());
  const std::string cut = (scratch_ / "cut.gguf").string();
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"inspect", cut}, "expected more bytes"},
      {{"chat", cut, "--message", "x"}, "expected more bytes"},
      {{"convert", cut, "--format", "bf16", "--output", out}, "expected more bytes"},
      {{"convert", file, "--format", "gguf", "--output", out}, "got a GGUF file"},
      {{"convert", kModel, "--format", "bf16", "--output", out}, "expected a quantized checkpoint"},
      {{"convert", kModel, "--format", "gguf", "--gguf-type", "nvfp4", "--output", out}, "NVFP4 modules"},
      {{"quantize", file, "--output", out, "--strategy", "max"}, "got a file"},
      {{"train", file, "--data", kChats, "--output", out}, "got a GGUF file"},
  };
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = nibble_command(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments[0];
    const std::string first = outcome.err.substr(0, outcome.err.find('\n'));
    EXPECT_NE(first.find(message), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("  hint: "), std::string::npos) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(out)) << arguments[0];
  }
}

}  // namespace
}  // namespace nibble::test

// Public benchmarks through the binary, against a scripted server.
#include <gtest/gtest.h>

#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/replay_server.h"

namespace nibble::test {
namespace {

const std::string kSuites = NIBBLE_SOURCE_DIR "/tests/suites/";

bool has(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

// The value of a gate in report.json.
double value_of(const Path& folder, const std::string& gate) {
  const Json report = parse_json(read_file(folder / "report.json").value(), "report").value();
  for (const Json& each : report["gates"]) {
    if (each["id"] == gate) return each["value"].get<double>();
  }
  ADD_FAILURE() << "no gate " << gate;
  return -1;
}

TEST(Suite, IsPlayedResumedAndComparedLikeARecipe) {
  const ReplayServer server(R"({"match": {"contains": ["lake"]}, "chunks": [{"text": "Still water. Slow wind."}]}
{"match": {"contains": ["tea in JSON"]}, "chunks": [{"text": "Sure:\n{\"tea\": \"leaf\"}"}]}
{"match": {"contains": ["good night"]}, "chunks": [{"text": "Good night."}]}
)");
  const Scratch scratch;
  const std::vector<std::string> command = {"gate",
                                            "--endpoint",
                                            server.url(),
                                            "--suite",
                                            "ifeval",
                                            "--data",
                                            kSuites + "ifeval",
                                            "--output",
                                            (scratch / "a").string()};
  const Outcome played = nibble_command(command);
  EXPECT_EQ(played.exit_code, 0) << played.err;
  EXPECT_TRUE(has(played.err, "ifeval: IFEval; published as Apache-2.0, licence file LICENSE\n")) << played.err;
  EXPECT_TRUE(has(played.err, "warning: ifeval: 3 loaded, 541 are published\n")) << played.err;
  EXPECT_TRUE(has(played.err, "ifeval: 3 cases, scorer version 1\n")) << played.err;
  EXPECT_TRUE(has(played.out, "ifeval_instruction_strict ")) << played.out;
  EXPECT_DOUBLE_EQ(value_of(scratch / "a", "ifeval_prompt_strict"), 1.0 / 3);
  EXPECT_DOUBLE_EQ(value_of(scratch / "a", "ifeval_prompt_loose"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(value_of(scratch / "a", "ifeval_instruction_strict"), 3.0 / 5);
  EXPECT_DOUBLE_EQ(value_of(scratch / "a", "ifeval_instruction_loose"), 4.0 / 5);

  std::vector<std::string> again = command;
  again.push_back("--resume");
  EXPECT_EQ(nibble_command(again).exit_code, 0);
  std::vector<std::string> both = command;
  both.back() = (scratch / "b").string();
  both.insert(both.end(), {"--against", server.url()});
  const Outcome compared = nibble_command(both);
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_TRUE(std::filesystem::exists(scratch / "b" / "compare.json"));
}

TEST(Suite, WrongCommandsSayWhatIsWrong) {
  const Scratch scratch;
  const auto refused = [&](std::vector<std::string> flags, std::string_view words) {
    std::vector<std::string> command = {"gate", "--endpoint", "http://127.0.0.1:9"};
    command.insert(command.end(), flags.begin(), flags.end());
    const Outcome outcome = nibble_command(command);
    EXPECT_EQ(outcome.exit_code, 2) << words;
    EXPECT_TRUE(has(outcome.err, words)) << outcome.err;
  };
  refused({"--suite", "gsm8k"}, "expected the folder of gsm8k, got none");
  refused({"--suite", "mmlu", "--data", kSuites + "gsm8k"}, "suite: expected one of bfcl, gsm8k, ifeval, got \"mmlu\"");
  refused({"--suite", "gsm8k", "--data", scratch.path().string()}, "expected a licence file");
  refused({"--suite", "gsm8k", "--data", kSuites + "bfcl"}, "gsm8k: expected test.jsonl or");
  refused({"--suite", "gsm8k", "--data", kSuites + "gsm8k", "--recipe", "replace"}, "--suite or --recipe");
  refused({"--data", kSuites + "gsm8k"}, "--suite");
}

}  // namespace
}  // namespace nibble::test

// eval over several models, and what activations are in force in which report.
#include <gtest/gtest.h>

#include "io/jsonl.h"
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

class EvalCommand : public testing::Test {
 protected:
  std::string quantized(const char* name, std::vector<std::string> flags) {
    const std::string out = (scratch_ / name).string();
    flags.insert(flags.begin(), {"quantize", kModel, "--output", out});
    EXPECT_EQ(nibble_command(flags).exit_code, 0);
    return out;
  }
  static Outcome eval(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"eval", kModel});
    arguments.insert(arguments.end(), {"--data", kChats, "--limit", "3"});
    return nibble_command(arguments);
  }

  Scratch scratch_;
};

TEST_F(EvalCommand, ComparesSeveralModelsWithTheFirst) {
  const std::string max = quantized("max", {"--strategy", "max"}), mse = quantized("mse", {"--strategy", "mse"});
  const Json alone = json_of(eval({max, "--json"})), both = json_of(eval({max, mse, kModel, "--json"}));
  ASSERT_EQ(both["models"].size(), 3u) << both.dump();
  EXPECT_EQ(both["models"][0]["mean_kl"], alone["mean_kl"]);
  EXPECT_EQ(both["models"][0]["b"], max);
  EXPECT_FALSE(both["models"][0].contains("difference"));
  EXPECT_EQ(both["conversations"], 3);
  EXPECT_EQ(both["models"][2]["mean_kl"], 0);
  EXPECT_EQ(both["models"][2]["format"], "bf16");
  for (const int i : {1, 2}) {
    const Json difference = both["models"][i]["difference"];
    const double apart = both["models"][i]["mean_kl"].get<double>() - alone["mean_kl"].get<double>();
    EXPECT_DOUBLE_EQ(difference["mean_kl"], apart);
    EXPECT_LE(difference["ci"][0], apart);
    EXPECT_GE(difference["ci"][1], apart);
  }
  const Outcome text = eval({max, mse});
  EXPECT_NE(text.out.find("mean KL beyond that of " + max), std::string::npos) << text.out;
}

TEST_F(EvalCommand, ActivationsAreAsStoredOrAsAsked) {
  const std::string a16 = quantized("a16", {}),
                    a4 = quantized("a4", {"--inputs", "a4", "--calib", kChats, "--samples", "2"});
  const auto measured = [](std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    const Json json = json_of(eval(std::move(arguments)));
    return std::pair(json.value("activations", ""), json.value("mean_kl", 0.0));
  };
  const auto stored16 = measured({a16}), stored4 = measured({a4});
  EXPECT_EQ(stored16.first, "a16");
  EXPECT_EQ(stored4.first, "a4");
  EXPECT_GT(stored4.second, stored16.second);
  EXPECT_EQ(measured({a4, "--act", "a16"}), stored16);
  EXPECT_EQ(measured({a4, "--act", "a4"}), stored4);
  const auto token = measured({a16, "--act", "a4-token"});
  EXPECT_EQ(token.first, "a4-token");
  EXPECT_EQ(measured({a4, "--act", "a4-token"}), token);
  EXPECT_GT(token.second, stored16.second);

  const Outcome refused = eval({a16, "--act", "a4"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("--act a4: expected static input scales in the checkpoint, got none"), std::string::npos);
  EXPECT_NE(refused.err.find("--act a4-token"), std::string::npos);
  EXPECT_EQ(json_of(nibble_command({"inspect", a4, "--json"}))["activations"], "a4");
  EXPECT_NE(nibble_command({"inspect", a4}).out.find("nvfp4, activations a4"), std::string::npos);
  const Json chat = json_of(nibble_command({"chat", a16, "--act", "a4-token", "--message", "Hello", "--json"}));
  EXPECT_EQ(chat["activations"], "a4-token");
}

// One conversation a line, one list of pairs for each of its tokens, likeliest first.
TEST_F(EvalCommand, WritesTheLikeliestNextTokens) {
  const std::string file = (scratch_ / "top.jsonl").string();
  const Json report = json_of(nibble_command(
      {"eval", kModel, "--data", kChats, "--limit", "2", "--top-logprobs", file, "--top", "5", "--json"}));
  EXPECT_EQ(report["conversations"], 2);
  size_t tokens = 0;
  ASSERT_TRUE(for_each_json_line(file, [&](Json& line, int64_t) -> Status {
                EXPECT_EQ(line["ids"].size(), line["top"].size());
                tokens += line["ids"].size();
                for (const Json& top : line["top"]) {
                  EXPECT_EQ(top.size(), 5u);
                  for (size_t i = 1; i < top.size(); ++i) EXPECT_LE(top[i][1], top[i - 1][1]);
                  EXPECT_LE(top[0][1], 0);
                }
                return {};
              }).ok());
  EXPECT_EQ(report["tokens"], tokens);

  EXPECT_EQ(eval({kModel, "--top-logprobs", file, "--json"}).exit_code, 0);  // beside a comparison
  EXPECT_EQ(nibble_command({"eval", kModel, "--data", kChats}).exit_code, 2);
  EXPECT_EQ(nibble_command({"eval", kModel, kModel, "--data", kChats, "--top", "5"}).exit_code, 2);
}

}  // namespace
}  // namespace nibble::test

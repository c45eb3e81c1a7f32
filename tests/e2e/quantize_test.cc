// nibble quantize with a look at data, as a user runs it.
#include <gtest/gtest.h>

#include <fstream>

#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

const std::string kModel = kTinyVoice.string(), kChats = NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl";

Json parsed(const std::string& text) {
  const Result<Json> json = parse_json(text, "report");
  EXPECT_TRUE(json.ok()) << json.status().text();
  return json.ok() ? *json : Json::object();
}

// The first lines of a file as a file of its own.
std::string first_lines(const Scratch& scratch, const std::string& file, int lines) {
  std::ifstream in(file);
  std::string text;
  for (std::string line; lines > 0 && std::getline(in, line); --lines) text += line + "\n";
  const Path out = scratch / "first.jsonl";
  EXPECT_TRUE(write_file(out, text).ok());
  return out.string();
}

TEST(QuantizeCommand, SearchesFormatsWithinBitsAndReportsWhatItFound) {
  const Scratch scratch;
  const std::string out = (scratch / "out").string(), few = first_lines(scratch, kChats, 3);
  const Outcome outcome =
      nibble_command({"quantize", kModel, "--recipe", "auto_mixed", "--effective-bits", "6", "--sensitivity",
                      "gradient", "--calib", few, "--holdout", few, "--output", out, "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json report = parsed(outcome.out);
  EXPECT_EQ(report["algo"], "MIXED_PRECISION");
  EXPECT_LE(report["effective_bits"].get<double>(), 6.001);
  EXPECT_GT(report["effective_bits"].get<double>(), 5.5);
  EXPECT_EQ(report["mixed"]["groups"].size(), 32u);
  EXPECT_GT(report["calibration_tokens"].get<int>(), 100);
  const double kl = report["divergence"]["mean_kl"].get<double>();
  EXPECT_GT(kl, 0);
  EXPECT_LT(kl, 0.02);
  EXPECT_EQ(report["divergence"]["tokens"], report["calibration_tokens"]) << "the same file for both";
  EXPECT_EQ(report["calibration_hash"].get<std::string>().size(), 64u);
  EXPECT_EQ(report["parameters"], parsed(nibble_command({"inspect", kModel, "--json"}).out)["parameters"]);
  for (const Json& tensor : report["tensors"]) {
    EXPECT_GT(tensor["relative_error"].get<double>(), 0);
    EXPECT_GT(tensor["max_error"].get<double>(), 0);
    EXPECT_EQ(tensor["sensitivity"].size(), 3u);
    const bool fp8 = tensor["format"] == "fp8";
    EXPECT_NEAR(tensor["bits"].get<double>(), fp8 ? 8 : 4.5, 0.01) << tensor["module"];
  }
  Json stored = parsed(*read_file(Path(out) / "quantize.json"));
  Json printed = report;
  printed.erase("output");
  printed.erase("seconds");
  printed["roofline_tok_s"].erase("here");
  EXPECT_EQ(stored, printed);
  const std::string page = *read_file(Path(out) / "report.html");
  EXPECT_NE(page.find("sum of sensitivities against bits"), std::string::npos);
  EXPECT_EQ(page.find("http"), page.find("http://www.w3.org/2000/svg")) << "asks for nothing";
  const Outcome loaded = nibble_command({"inspect", out});
  EXPECT_EQ(loaded.exit_code, 0) << loaded.err;
}

TEST(QuantizeCommand, NamesWhatARecipeNeeds) {
  const Scratch scratch;
  const std::string out = (scratch / "out").string();
  for (const char* recipe : {"gptq", "local_hessian", "awq_lite", "svdquant", "signround", "best"}) {
    const Outcome outcome = nibble_command({"quantize", kModel, "--recipe", recipe, "--output", out});
    EXPECT_EQ(outcome.exit_code, 2) << recipe;
    EXPECT_NE(outcome.err.find("expected --calib FILE"), std::string::npos) << outcome.err;
  }
  const Outcome tight = nibble_command({"quantize", kModel, "--recipe", "auto_mixed", "--max-bytes", "1000", "--calib",
                                        kChats, "--samples", "2", "--output", out});
  EXPECT_EQ(tight.exit_code, 2);
  EXPECT_NE(tight.err.find("budget: expected at least"), std::string::npos) << tight.err;
}

}  // namespace
}  // namespace nibble::test

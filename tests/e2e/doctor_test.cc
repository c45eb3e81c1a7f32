// The doctor and the converter as a user runs them: exit codes, repaired copies, and no complaint about our own
// exports.
#include <gtest/gtest.h>

#include "io/json.h"
#include "tests/support/command.h"

namespace nibble::test {
namespace {

const std::string kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";

Json json_of(const Outcome& outcome) {
  Result<Json> json = parse_json(outcome.out, "stdout");
  EXPECT_TRUE(json.ok()) << outcome.out << outcome.err;
  return json.ok() ? *json : Json::object();
}

TEST(DoctorCommand, SaysWhatHurtsWhomAndRepairsACopy) {
  Scratch scratch;
  const Outcome plain = nibble_command({"doctor", kTinyVoice});
  EXPECT_EQ(plain.exit_code, 0) << plain.out << plain.err;
  EXPECT_NE(plain.out.find("D8"), std::string::npos);

  const Outcome asked = nibble_command({"doctor", kTinyVoice, "--target", "vllm", "--json"});
  EXPECT_EQ(asked.exit_code, 1);
  const Json report = json_of(asked);
  EXPECT_GT(report["errors"].get<int>(), 0);
  EXPECT_EQ(report["findings"][0]["level"], "error");

  const std::string fixed = (scratch / "fixed").string();
  const Outcome repaired = nibble_command({"doctor", kTinyVoice, "--target", "vllm", "--fix", fixed});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.out << repaired.err;
  EXPECT_EQ(nibble_command({"doctor", fixed, "--target", "vllm"}).exit_code, 0);
  EXPECT_EQ(nibble_command({"inspect", fixed}).exit_code, 0);
  EXPECT_EQ(nibble_command({"doctor", kTinyVoice, "--target", "vllm", "--fix", fixed}).exit_code, 2);  // it is there

  EXPECT_EQ(nibble_command({"doctor", (scratch / "nowhere").string()}).exit_code, 2);
  EXPECT_EQ(nibble_command({"doctor"}).exit_code, 2);
  EXPECT_NE(nibble_command({"doctor", "--rules"}).out.find("D40"), std::string::npos);
}

TEST(DoctorCommand, HasNothingAgainstOurOwnExports) {
  for (const char* format : {"modelopt", "compressed-tensors"}) {
    Scratch scratch;
    const std::string out = (scratch / "out").string(), other = (scratch / "other").string();
    const Outcome made =
        nibble_command({"quantize", kTinyVoice, "--recipe", "max", "--format", format, "--output", out});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const Outcome looked = nibble_command({"doctor", out, "--json"});
    EXPECT_EQ(looked.exit_code, 0) << looked.out;
    for (const auto& finding : json_of(looked)["findings"]) EXPECT_EQ(finding["repaired"], false) << finding.dump();

    const char* target = std::string(format) == "modelopt" ? "compressed-tensors" : "modelopt";
    const Outcome converted = nibble_command({"convert", out, "--format", target, "--output", other, "--json"});
    ASSERT_EQ(converted.exit_code, 0) << converted.err;
    EXPECT_EQ(json_of(converted)["linears"], 50);
    EXPECT_EQ(nibble_command({"doctor", other}).exit_code, 0);
    EXPECT_EQ(nibble_command({"convert", out, "--format", "bf16", "--output", (scratch / "bf16").string()}).exit_code,
              0);
    EXPECT_EQ(nibble_command({"doctor", (scratch / "bf16").string()}).exit_code, 0);
  }
}

}  // namespace
}  // namespace nibble::test

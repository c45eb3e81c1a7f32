// nibble train: the memory plan and what a run takes of it, and what a checkpoint knows of its prompts.
#include <gtest/gtest.h>

#include <fstream>

#include "io/json.h"
#include "tests/support/command.h"

namespace nibble::test {
namespace {

const std::string kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";
const std::string kValid = NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl";

// The arguments of a short run, then `more`.
std::vector<std::string> training(const Path& output, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"train",  kTinyVoice, "--data", kValid,     "--think-prefix",
                                        "target", "--steps",  "1",      "--output", output.string()};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

Json json_of(const Outcome& outcome) {
  auto json = parse_json(outcome.out, "output");
  EXPECT_TRUE(json.ok()) << outcome.out << outcome.err;
  return json.ok() ? *json : Json::object();
}

struct Mode {
  const char* name;
  std::vector<std::string> flags;
};

class PeakMemory : public testing::TestWithParam<Mode> {};

// What the run's process took at most, by the system's count, which includes the mapped files of the model.
TEST_P(PeakMemory, IsNearThePlan) {
  const Scratch dir;
  std::vector<std::string> flags = GetParam().flags;
  flags.insert(flags.end(), {"--limit", "8", "--json"});
  const Outcome run = nibble_command(training(dir / "out", flags));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto planned = json_of(run)["plan"]["total_bytes"].get<double>();
  const auto metrics = read_file(dir / "out/metrics.jsonl");
  ASSERT_TRUE(metrics.ok());
  const size_t at = metrics->find("\"memory_bytes\":");
  ASSERT_NE(at, std::string::npos) << *metrics;
  const double measured = std::stod(metrics->substr(at + 15));
  constexpr double kFixed = 40e6;  // the files of the source, and what a library keeps for itself
  EXPECT_LE(measured, 1.25 * planned + kFixed);
  EXPECT_GE(measured, .75 * planned - kFixed);
}

INSTANTIATE_TEST_SUITE_P(Modes, PeakMemory,
                         testing::Values(Mode{"sft", {"--mode", "sft"}},
                                         Mode{"qad", {"--mode", "qad", "--teacher", kTinyVoice}},
                                         Mode{"recompute", {"--mode", "sft", "--recompute"}}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(MemoryPlan, IsPrintedBeforeTheFirstStep) {
  const Scratch dir;
  const Outcome run = nibble_command(training(dir / "out", {"--mode", "sft", "--limit", "2"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.err.find("memory plan\n"), 0u) << run.err;
  EXPECT_NE(run.err.find("that are free"), std::string::npos);
}

TEST(MemoryPlan, RefusesWithAHint) {
  const Scratch dir;
  const Outcome run = nibble_command(training(dir / "out", {"--mode", "sft", "--keep-traces", "--memory", "0.2"}));
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("out of memory: memory plan: expected at most 180.0 MB"), std::string::npos) << run.err;
  EXPECT_NE(run.err.find("hint: without --keep-traces"), std::string::npos) << run.err;
  std::error_code error;
  EXPECT_FALSE(std::filesystem::exists(dir / "out", error));
}

TEST(MemoryPlan, NeedsNoWeightsToBeAsked) {
  const Scratch dir;
  std::ofstream(dir / "config.json") << std::ifstream(kTinyVoice + "/config.json").rdbuf();
  const Outcome plan = nibble_command({"train", dir.path().string(), "--mode", "sft", "--plan", "--json"});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_GT(json_of(plan)["plan"]["items"]["gradients"], 8'000'000 * 4);

  const std::vector<std::string> large = {"train", "9b", "--mode", "qat", "--plan", "--memory", "121", "--json"};
  const Outcome refused = nibble_command(large);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("hint:"), std::string::npos);
  EXPECT_EQ(json_of(refused)["plan"]["fits"], false);
  std::vector<std::string> small = large;
  small.insert(small.end(), {"--moments", "q8", "--train", "linears", "--batch", "1"});
  const Outcome fits = nibble_command(small);
  EXPECT_EQ(fits.exit_code, 0) << fits.err;
  EXPECT_EQ(json_of(fits)["plan"]["fits"], true);
  EXPECT_EQ(nibble_command({"train", "10b", "--plan"}).exit_code, 2);
  EXPECT_EQ(nibble_command({"train", kTinyVoice}).exit_code, 2);
}

TEST(PromptLock, TravelsWithTheCheckpoint) {
  const Scratch dir;
  const std::string data = (dir / "data.jsonl").string(), last = (dir / "out/last").string();
  std::ofstream(data) << R"({"messages": [{"role": "system", "content": "You are A."},)"
                         R"( {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]})"
                         "\n";
  const Outcome run = nibble_command({"train", kTinyVoice, "--mode", "sft", "--data", data, "--think-prefix", "target",
                                      "--steps", "1", "--output", (dir / "out").string()});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const auto ask = [](const std::string& model, const std::string& system) {
    return nibble_command(
        {"chat", model, "--system", system, "--message", "Hi", "--max-tokens", "2", "--temperature", "0"});
  };
  EXPECT_EQ(ask(last, "You are A.").err, "");
  EXPECT_NE(ask(last, "You are B.").err.find("chat: the system prompt (sha256 "), std::string::npos);
  EXPECT_EQ(ask(kTinyVoice, "You are B.").err, "");

  const std::string quantized = (dir / "nvfp4").string();
  ASSERT_EQ(nibble_command({"quantize", last, "--output", quantized}).exit_code, 0);
  EXPECT_NE(ask(quantized, "You are B.").err.find("is none of the 1 that the model was trained with"),
            std::string::npos);

  std::ofstream(last + "/nibble_training.json") << "{";
  const Outcome broken = ask(last, "You are B.");
  EXPECT_EQ(broken.exit_code, 0);
  EXPECT_NE(broken.err.find("prompt lock:"), std::string::npos) << broken.err;
}

TEST(Preflight, ReportsDataAndPlanAndWritesNothing) {
  const Scratch dir;
  const std::vector<std::string> flags = {"--mode", "sft", "--valid", kValid, "--check"};
  const Outcome text = nibble_command(training(dir / "out", flags));
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"--data ", "--valid ", "[[", "prompt lock", "memory plan", "total"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part;
  }
  std::vector<std::string> with_json = flags;
  with_json.push_back("--json");
  const Json json = json_of(nibble_command(training(dir / "out", with_json)));
  EXPECT_EQ(json["data"], json_of(nibble_command({"data", "check", kValid, "--model", kTinyVoice, "--max-length",
                                                  "2048", "--think-prefix", "target", "--json"})));
  EXPECT_EQ(json["valid"]["records"], 300);
  EXPECT_EQ(json["plan"]["fits"], true);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));

  const std::string bad = (dir / "bad.jsonl").string();
  std::ofstream(bad) << std::ifstream(kValid).rdbuf() << "{\n";
  const Outcome refused = nibble_command({"train", kTinyVoice, "--mode", "sft", "--data", bad, "--check"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.out.find("bad.jsonl:301: "), std::string::npos) << refused.out;
  EXPECT_NE(refused.out.find("memory plan"), std::string::npos);
  EXPECT_EQ(nibble_command({"train", kTinyVoice, "--check"}).exit_code, 2);

  // Prompts of the gates are told; where somebody asks for it, they are refused.
  EXPECT_EQ(json["data"]["holdout"]["errors"], 0);
  EXPECT_GT(json["data"]["holdout"]["records"], 0);
  std::vector<std::string> held_out = flags;
  held_out.insert(held_out.end(), {"--holdout", "companion"});
  const Outcome overlap = nibble_command(training(dir / "out", held_out));
  EXPECT_EQ(overlap.exit_code, 2);
  EXPECT_NE(overlap.out.find("Who am I?"), std::string::npos) << overlap.out;
}

Json settings_of(const Path& run) {
  const auto text = read_file(run / "last/nibble_training.json");
  EXPECT_TRUE(text.ok());
  return text.ok() ? *parse_json(*text, "settings") : Json();
}

TEST(Recipe, FillsInWhatWasNotGiven) {
  const Scratch dir;
  const std::string file = (dir / "recipe.json").string();
  std::ofstream(file) << R"({"mode": "sft", "lr": 1e-3, "batch": 2, "loss-rows": "all", "keep-traces": true})";
  const Outcome run = nibble_command(training(dir / "out", {"--recipe", file, "--lr", "1e-4", "--limit", "4"}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const Json settings = settings_of(dir / "out");
  EXPECT_EQ(settings["mode"], "sft");
  EXPECT_EQ(settings["lr"], 1e-4);
  EXPECT_EQ(settings["batch"], 2);
  EXPECT_EQ(settings["loss_rows"], "all");
  EXPECT_EQ(settings["recipe"], file);
}

TEST(Recipe, NamedOnesAreListedAndSound) {
  const Outcome list = nibble_command({"train", "--recipe", "list"});
  ASSERT_EQ(list.exit_code, 0) << list.err;
  for (const char* name : {"sft", "qat", "qad", "qad-tiny"}) {
    EXPECT_NE(list.out.find(name), std::string::npos) << list.out;
    const Outcome plan = nibble_command({"train", kTinyVoice, "--recipe", name, "--plan", "--memory", "64"});
    EXPECT_EQ(plan.exit_code, 0) << plan.err;
  }
}

TEST(Recipe, OthersAreRefusedByName) {
  const Scratch dir;
  const std::string file = (dir / "recipe.json").string();
  const auto refused = [&](const std::string& recipe) {
    std::ofstream(file) << recipe;
    const Outcome run = nibble_command({"train", kTinyVoice, "--recipe", file, "--plan"});
    EXPECT_EQ(run.exit_code, 2) << recipe;
    return run.err;
  };
  EXPECT_NE(refused(R"({"output": "x"})").find("got \"output\""), std::string::npos);
  EXPECT_NE(refused(R"({"learning_rate": 1})").find("got \"learning_rate\""), std::string::npos);
  EXPECT_NE(refused(R"({"batch": 0})").find("--batch"), std::string::npos);
  EXPECT_NE(refused(R"({"mode": "magic"})").find("--mode"), std::string::npos);
  EXPECT_NE(refused(R"({"lr": {}})").find("lr: expected"), std::string::npos);
  refused("[1]");
  refused("{");
  const Outcome unknown = nibble_command({"train", kTinyVoice, "--recipe", "magic", "--plan"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_NE(unknown.err.find("hint: nibble train --recipe list"), std::string::npos) << unknown.err;
}

TEST(Sidecar, StandsForTheTeacher) {
  const Scratch dir;
  const auto run = [&](const char* output, std::vector<std::string> more) {
    more.insert(more.end(), {"--mode", "qad", "--teacher", kTinyVoice, "--valid", kValid, "--valid-limit", "2",
                             "--limit", "3", "--batch", "2", "--json"});
    return nibble_command(training(dir / output, more));
  };
  const std::string file = (dir / "teacher.hid").string();
  const Outcome resident = run("resident", {});
  ASSERT_EQ(resident.exit_code, 0) << resident.err;
  for (const char* output : {"writes", "reads"}) {
    const Outcome sidecar = run(output, {"--sidecar", file});
    ASSERT_EQ(sidecar.exit_code, 0) << sidecar.err;
    EXPECT_EQ(json_of(sidecar)["loss"], json_of(resident)["loss"]);
    EXPECT_EQ(json_of(sidecar)["validation"], json_of(resident)["validation"]);
    EXPECT_TRUE(*read_file(dir / output / "last/model.safetensors") ==
                *read_file(dir / "resident/last/model.safetensors"));
  }
  const Outcome other = run("other", {"--sidecar", file, "--loss-rows", "assistant"});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_NE(other.err.find("sidecar: line 1: expected"), std::string::npos) << other.err;
  EXPECT_NE(other.err.find("hint: since it was written the loss kinds changed"), std::string::npos) << other.err;
  const Outcome unused = nibble_command(training(dir / "sft", {"--mode", "sft", "--sidecar", file}));
  EXPECT_EQ(unused.exit_code, 2);
}

}  // namespace
}  // namespace nibble::test

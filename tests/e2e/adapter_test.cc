// A LoRA adapter through the real binary.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "checkpoint/adapter_writer.h"
#include "io/json.h"
#include "tests/support/command.h"
#include "tests/support/models.h"

namespace nibble::test {
namespace {

const std::string kModule = "mlp.down_proj";

// Rank 2 on every down_proj of tiny-voice, large enough to be heard.
void write_random_adapter(const Path& folder) {
  Rng rng(11);
  std::vector<OwnedTensor> memory;
  std::vector<checkpoint::AdapterTensors> tensors;
  checkpoint::LoadedModel model = load(kTinyVoice);
  model.weights.for_each_linear([&](std::string_view module, ops::Linear& linear) {
    if (!module.ends_with(kModule)) return;
    for (const Shape& shape : {Shape{2, linear.in}, Shape{linear.out, 2}}) {
      memory.emplace_back(DType::f32, shape);
      for (float& x : memory.back().view.f32_span()) x = 0.05f * rng.normal();
    }
    tensors.push_back({std::string(module), memory[memory.size() - 2].view, memory.back().view});
  });
  const Status written = checkpoint::write_adapter(folder, {2, 4, "tiny-voice", {kModule}}, tensors);
  ASSERT_TRUE(written.ok()) << written.text();
}

Json json_of(const Outcome& outcome) {
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const Result<Json> json = parse_json(outcome.out, "output");
  return json.ok() ? *json : Json::object();
}

class AdapterCommand : public testing::Test {
 protected:
  void SetUp() override { write_random_adapter(lora()); }
  Path lora() const { return scratch_ / "lora"; }

  Json eval(std::vector<std::string> arguments) {
    for (const char* word : {"--data", NIBBLE_SOURCE_DIR "/tests/golden/data/valid.jsonl", "--limit", "2", "--json"}) {
      arguments.emplace_back(word);
    }
    arguments.insert(arguments.begin(), "eval");
    return json_of(nibble_command(arguments));
  }

  Scratch scratch_;
};

TEST_F(AdapterCommand, EvalHearsItOnEitherSide) {
  const std::string model = kTinyVoice.string(), adapter = lora().string();
  const Json apart = eval({model, model, "--adapter-b", adapter});
  EXPECT_GT(apart.value("mean_kl", 0.0), 1e-3) << apart.dump();
  EXPECT_EQ(apart["adapter_b"], adapter);
  const Json same = eval({model, model, "--adapter", adapter, "--adapter-b", adapter});
  EXPECT_LT(same.value("mean_kl", 1.0), 1e-9) << same.dump();
}

TEST_F(AdapterCommand, QuantizeMergesIt) {
  const std::string model = kTinyVoice.string(), adapter = lora().string(), out = (scratch_ / "four").string();
  const Json report = json_of(nibble_command({"quantize", model, "--adapter", adapter, "--output", out, "--json"}));
  EXPECT_EQ(report["adapter"], adapter);
  const double to_merged = eval({model, out, "--adapter", adapter}).value("mean_kl", 1e9);
  const double to_base = eval({model, out}).value("mean_kl", 0.0);
  EXPECT_LT(to_merged, to_base);
}

TEST_F(AdapterCommand, FourBitsAreRefused) {
  const std::string four_bits = (scratch_ / "four").string();
  ASSERT_EQ(nibble_command({"quantize", kTinyVoice.string(), "--output", four_bits}).exit_code, 0);
  const Outcome outcome = nibble_command({"chat", four_bits, "--adapter", lora().string(), "--message", "Hi"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_NE(outcome.err.find("would round the adapter away"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace nibble::test

#include "checkpoint/convert_layout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/compressed_tensors_check.h"
#include "checkpoint/modelopt_check.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/test_folder.h"
#include "io/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::TestCheckpoint;

std::vector<float> logits_of(const Path& folder) {
  const Result<LoadedModel> model = load_checkpoint(folder, {});
  EXPECT_TRUE(model.ok()) << model.status().text();
  return model.ok() ? testing::logits(*model) : std::vector<float>();
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    energy += b[i] * b[i];
  }
  return std::sqrt(error / energy);
}

// Scales of which the reciprocal is exact, equal within fused groups.
TestCheckpoint model_of(const std::string& algo) {
  TestCheckpoint model = TestCheckpoint::micro_nvfp4(algo);
  for (auto& [name, blob] : model.tensors) {
    const float scale = 0x1p-10f, input = 0x1p-7f;
    const float* value = name.ends_with(".weight_scale_2") ? &scale : name.ends_with(".input_scale") ? &input : nullptr;
    if (value != nullptr) blob.bytes.assign(reinterpret_cast<const char*>(value), sizeof *value);
  }
  model.files["tokenizer_config.json"] = R"({"eos_token": "x"})";
  return model;
}

Converted convert(const Path& from, const Path& to, TargetLayout target) {
  Result<Converted> made = convert_layout(from, to, target);
  EXPECT_TRUE(made.ok()) << made.status().text();
  return made.ok() ? *made : Converted{};
}

TEST(ConvertLayout, ThereAndBackIsTheSame) {
  for (const char* algo : {"W4A16_NVFP4", "NVFP4"}) {
    TemporaryFolder scratch;
    model_of(algo).write(scratch / "source", 2);
    const Converted there = convert(scratch / "source", scratch / "ct", TargetLayout::compressed_tensors);
    EXPECT_EQ(there.algo, "nvfp4-pack-quantized");
    EXPECT_EQ(there.linears, 25);
    const Converted back = convert(scratch / "ct", scratch / "modelopt", TargetLayout::modelopt);
    EXPECT_EQ(back.algo, algo);
    const std::vector<float> expected = logits_of(scratch / "source");
    EXPECT_EQ(logits_of(scratch / "ct"), expected);
    EXPECT_EQ(logits_of(scratch / "modelopt"), expected);
    EXPECT_TRUE(compressed_tensors_problems(scratch / "ct").empty());
    for (const Status& problem : modelopt_problems(scratch / "modelopt")) ADD_FAILURE() << problem.text();
    EXPECT_EQ(*read_file(scratch / "ct/tokenizer_config.json"), R"({"eos_token": "x"})");
    EXPECT_FALSE(std::filesystem::exists(scratch / "ct/hf_quant_config.json"));
  }
}

// What the codes mean, rounded to BF16: the micro model is F32, so the rounding is all that differs.
TEST(ConvertLayout, Bf16HoldsWhatTheCodesMean) {
  TemporaryFolder scratch;
  model_of("W4A16_NVFP4").write(scratch / "source");
  const Converted made = convert(scratch / "source", scratch / "bf16", TargetLayout::bf16);
  EXPECT_EQ(made.linears, 25);
  EXPECT_FALSE(testing::read_json_file(scratch / "bf16/config.json").contains("quantization_config"));
  const std::vector<float> expected = logits_of(scratch / "source"), actual = logits_of(scratch / "bf16");
  EXPECT_LT(relative_error(actual, expected), 4e-3);
  const Result<SafetensorsFolder> files = SafetensorsFolder::open(scratch / "bf16");
  ASSERT_TRUE(files.ok());
  for (const auto& entry : files->tensors()) {
    EXPECT_NE(entry.info->dtype, "U8");
    EXPECT_FALSE(entry.info->name.ends_with("_scale")) << entry.info->name;
  }
}

TEST(ConvertLayout, RefusesWhatALayoutDoesNotHold) {
  TemporaryFolder scratch;
  TestCheckpoint::micro().write(scratch / "dense");
  EXPECT_EQ(convert_layout(scratch / "dense", scratch / "out", TargetLayout::bf16).status().code(),
            Code::invalid_argument);
  TestCheckpoint awq = model_of("NVFP4");
  awq.config["quantization_config"]["quant_algo"] = "NVFP4_AWQ";
  const int64_t inner = awq.tensors["model.layers.0.mlp.down_proj.weight"].shape[1] * 2;
  std::string factors;
  for (int64_t k = 0; k < inner; ++k) factors += std::string("\x00\x3f", 2);  // 0.5 in BF16
  awq.tensors["model.layers.0.mlp.down_proj.pre_quant_scale"] = {"BF16", {inner}, factors};
  awq.write(scratch / "awq");
  for (const TargetLayout target : {TargetLayout::modelopt, TargetLayout::compressed_tensors}) {
    EXPECT_EQ(convert_layout(scratch / "awq", scratch / "out", target).status().code(), Code::unsupported);
  }
  convert(scratch / "awq", scratch / "awq-bf16", TargetLayout::bf16);
  EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
  const Result<SafetensorsFolder> files = SafetensorsFolder::open(scratch / "awq-bf16");
  ASSERT_TRUE(files.ok());
  EXPECT_EQ(files->find("model.layers.0.mlp.down_proj.pre_quant_scale"), nullptr);
  EXPECT_EQ(convert_layout(scratch / "awq", scratch / "awq/inside", TargetLayout::bf16).status().code(),
            Code::invalid_argument);
}

}  // namespace
}  // namespace nibble::checkpoint

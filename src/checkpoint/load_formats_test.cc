// Folders in ModelOpt's layout that hold more than NVFP4: FP8, mixtures, low-rank branches and quantized heads.
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "checkpoint/load.h"
#include "checkpoint/test_folder.h"
#include "tensor/numeric.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::TestCheckpoint;

const std::string kUp = "model.layers.0.mlp.up_proj";

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// Turns a matrix of the micro model into FP8 of that tensor's own range, or of each row's.
void to_fp8(TestCheckpoint& c, const std::string& module, bool by_channel, bool input_scale = false) {
  testing::Blob& weight = c.tensors.at(module + ".weight");
  const int64_t out = weight.shape[0], in = weight.shape[1];
  const auto* w = reinterpret_cast<const float*>(weight.bytes.data());
  std::vector<float> scales;
  std::vector<uint8_t> codes;
  for (int64_t n = 0; n < out; ++n) {
    float amax = 0;
    for (int64_t i = by_channel ? n * in : 0; i < (by_channel ? (n + 1) * in : out * in); ++i) {
      amax = std::max(amax, std::abs(w[i]));
    }
    scales.push_back(amax / kE4m3Max);
    for (int64_t i = n * in; i < (n + 1) * in; ++i) codes.push_back(f32_to_e4m3(w[i] / scales.back()));
  }
  weight = {"F8_E4M3", {out, in}, bytes_of(codes)};
  if (!by_channel) scales.resize(1);
  c.tensors[module + ".weight_scale"] = {"F32", by_channel ? std::vector<int64_t>{out, 1} : std::vector<int64_t>{},
                                         bytes_of(scales)};
  if (input_scale) c.tensors[module + ".input_scale"] = {"F32", {}, bytes_of(std::vector<float>{0.02f})};
}

Json modelopt(const char* algo) {
  return {{"quant_method", "modelopt"}, {"quant_algo", algo}, {"ignore", Json::array()}};
}

std::vector<std::string> block_linears(const TestCheckpoint& c) {
  std::vector<std::string> modules;
  for (const auto& [name, blob] : c.tensors) {
    if (blob.shape.size() == 2 && !name.ends_with("embed_tokens.weight"))
      modules.push_back(name.substr(0, name.size() - 7));
  }
  return modules;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  return std::sqrt(squares / size);
}

Result<LoadedModel> load_written(const TestCheckpoint& c, const TemporaryFolder& folder) {
  c.write(folder.path());
  return load_checkpoint(folder.path());
}

/// The same weights as the numbers they stand for, in f32.
TestCheckpoint decoded(const TestCheckpoint& c) {
  TestCheckpoint out = c;
  out.config.erase("quantization_config");
  for (const auto& [name, blob] : c.tensors) {
    if (blob.dtype != "F8_E4M3") continue;
    const std::string module = name.substr(0, name.size() - 7);
    const testing::Blob& scale = c.tensors.at(module + ".weight_scale");
    const auto* scales = reinterpret_cast<const float*>(scale.bytes.data());
    std::vector<float> values;
    for (size_t i = 0; i < blob.bytes.size(); ++i) {
      const float factor = scales[scale.shape.empty() ? 0 : i / static_cast<size_t>(blob.shape[1])];
      values.push_back(e4m3_to_f32(static_cast<uint8_t>(blob.bytes[i])) * factor);
    }
    out.tensors[name] = {"F32", blob.shape, bytes_of(values)};
    out.tensors.erase(module + ".weight_scale");
    out.tensors.erase(module + ".input_scale");
  }
  return out;
}

TEST(LoadFormats, Fp8IsTheNumbersItStandsFor) {
  const TestCheckpoint plain = TestCheckpoint::micro();
  for (const bool by_channel : {false, true}) {
    for (const bool inputs : {false, true}) {
      TestCheckpoint c = plain;
      for (const std::string& module : block_linears(plain)) to_fp8(c, module, by_channel, inputs);
      c.config["quantization_config"] = modelopt(by_channel ? "FP8_PER_CHANNEL_PER_TOKEN" : "FP8");
      const TemporaryFolder folder, other;
      const Result<LoadedModel> m = load_written(c, folder), wide = load_written(decoded(c), other);
      ASSERT_TRUE(m.ok()) << m.status().text();
      ASSERT_TRUE(wide.ok()) << wide.status().text();
      const ops::Linear& up = m->weights.blocks[0].mlp.up_proj;
      EXPECT_EQ(up.format, ops::WeightFormat::fp8);
      EXPECT_EQ(up.channel_scale.empty(), !by_channel);
      // Scales per token are not computed: such inputs stay as they are.
      EXPECT_EQ(up.inputs, inputs && !by_channel ? ops::InputRounding::fp8 : ops::InputRounding::none);
      EXPECT_EQ(m->format.format, "fp8");
      const double error = distance(testing::logits(*wide), testing::logits(*m));
      EXPECT_LT(error, up.inputs == ops::InputRounding::none ? 1e-5 : 1.0);
      EXPECT_EQ(error > 1e-4, up.inputs == ops::InputRounding::fp8);
    }
  }
}

TEST(LoadFormats, LayersOfAMixtureAreEachTheirOwn) {
  TestCheckpoint c = TestCheckpoint::micro_nvfp4();
  Json layers = Json::object();
  for (const auto& [name, blob] : c.tensors) {
    if (blob.dtype == "U8")
      layers[name.substr(0, name.size() - 7)] = {{"quant_algo", "W4A16_NVFP4"}, {"group_size", 16}};
  }
  to_fp8(c, "lm_head", false, true);
  layers["lm_head"] = {{"quant_algo", "FP8"}};
  c.tensors[kUp + ".input_scale"] = {"F32", {}, bytes_of(std::vector<float>{0.01f})};
  layers[kUp] = {{"quant_algo", "NVFP4"}, {"group_size", 16}};
  c.config["quantization_config"] = modelopt("MIXED_PRECISION");
  c.config["quantization_config"]["quantized_layers"] = layers;
  c.config["quantization_config"]["ignore"] = {"lm_head*"};  // and quantized all the same
  const TemporaryFolder folder;
  const Result<LoadedModel> m = load_written(c, folder);
  ASSERT_TRUE(m.ok()) << m.status().text();
  EXPECT_EQ(m->weights.lm_head.format, ops::WeightFormat::fp8);
  EXPECT_EQ(m->weights.lm_head.inputs, ops::InputRounding::fp8);
  EXPECT_EQ(m->weights.blocks[0].mlp.up_proj.inputs, ops::InputRounding::nvfp4);
  EXPECT_EQ(m->weights.blocks[0].mlp.gate_proj.inputs, ops::InputRounding::none);
  EXPECT_EQ(m->format.format, "mixed");
  EXPECT_EQ(m->format.linears.at("fp8"), 1);
  for (const float x : testing::logits(*m)) ASSERT_TRUE(std::isfinite(x));
  // A layer that the map leaves out is in full precision.
  c.config["quantization_config"]["quantized_layers"].erase(kUp);
  EXPECT_NE(load_written(c, folder).status().message().find(kUp + ".weight: expected [96,64] bf16, f16 or f32"),
            std::string::npos);
}

TEST(LoadFormats, ReadsLowRankBranches) {
  TestCheckpoint c = TestCheckpoint::micro_nvfp4();
  Rng rng(3);
  constexpr int64_t kRank = 4;
  std::vector<std::string> modules;
  for (const auto& [name, blob] : c.tensors) {
    if (blob.dtype == "U8") modules.push_back(name.substr(0, name.size() - 7));
  }
  for (const std::string& module : modules) {
    const std::vector<int64_t> shape = c.tensors.at(module + ".weight").shape;
    const auto factor = [&](int64_t rows, int64_t columns, float size) {
      std::vector<uint16_t> values;
      for (int64_t i = 0; i < rows * columns; ++i) values.push_back(f32_to_bf16(size * rng.normal()));
      return testing::Blob{"BF16", {rows, columns}, bytes_of(values)};
    };
    c.tensors[module + ".svdquant_lora_a"] = factor(kRank, shape[1] * 2, 0.1f);
    c.tensors[module + ".svdquant_lora_b"] = factor(shape[0], kRank, 0.1f);
  }
  c.config["quantization_config"]["quant_algo"] = "NVFP4_SVD";
  const TemporaryFolder folder, other;
  const Result<LoadedModel> m = load_written(c, folder);
  ASSERT_TRUE(m.ok()) << m.status().text();
  const ops::Linear& up = m->weights.blocks[0].mlp.up_proj;
  EXPECT_EQ(up.low_rank_a.shape(), Shape({kRank, 64}));
  EXPECT_EQ(up.low_rank_b.shape(), Shape({96, kRank}));
  EXPECT_EQ(up.inputs, ops::InputRounding::none);  // without an input scale
  const double moved =
      distance(testing::logits(*load_written(TestCheckpoint::micro_nvfp4(), other)), testing::logits(*m));
  EXPECT_GT(moved, 0.01);
  c.tensors[kUp + ".svdquant_lora_b"].shape = {kRank, 96};
  EXPECT_NE(load_written(c, folder).status().message().find("svdquant_lora_b: expected [96,4] bf16, got [4,96] bf16"),
            std::string::npos);
}

TEST(LoadFormats, RefusesBadFp8) {
  const struct {
    const char* message;
    void (*breaks)(TestCheckpoint&);
  } cases[] = {
      {"up_proj.weight[1,2]: expected an E4M3 number, got 0xFF",
       [](auto& c) { c.tensors[kUp + ".weight"].bytes[66] = '\xff'; }},
      {"up_proj.weight_scale: expected [] f32, got no such tensor",
       [](auto& c) { c.tensors.erase(kUp + ".weight_scale"); }},
      {"up_proj.weight_scale: expected [] f32, got [2] f32",
       [](auto& c) {
         c.tensors[kUp + ".weight_scale"] = {"F32", {2}, bytes_of(std::vector<float>{1, 1})};
       }},
      {"up_proj.weight_scale[0]: expected a positive number, got nan",
       [](auto& c) {
         c.tensors[kUp + ".weight_scale"] = {"F32", {}, bytes_of(std::vector<float>{NAN})};
       }},
      {"up_proj.weight: expected [96,64] f8e4m3, got [48,128] f8e4m3",
       [](auto& c) {
         c.tensors[kUp + ".weight"].shape = {48, 128};
       }},
      {"up_proj.input_scale: expected a positive number, got 0",
       [](auto& c) {
         c.tensors[kUp + ".input_scale"] = {"F32", {}, bytes_of(std::vector<float>{0})};
       }},
      {"lm_head.weight: expected FP8 as quantization_config says, got [160,64] f32",
       [](auto& c) { c.config["quantization_config"]["ignore"].erase(0); }},
  };
  TestCheckpoint whole = TestCheckpoint::micro();
  to_fp8(whole, kUp, false);
  whole.config["quantization_config"] = modelopt("FP8");
  whole.config["quantization_config"]["ignore"] = {"lm_head",    "*self_attn*", "*linear_attn*", "*gate_proj",
                                                   "*down_proj", "*layers.1*",  "*layers.2*",    "*layers.3*"};
  const TemporaryFolder folder;
  ASSERT_TRUE(load_written(whole, folder).ok()) << load_written(whole, folder).status().text();
  for (const auto& c : cases) {
    TestCheckpoint broken = whole;
    c.breaks(broken);
    const Status status = load_written(broken, folder).status();
    EXPECT_NE(status.message().find(c.message), std::string::npos) << c.message << ": " << status.text();
    EXPECT_FALSE(status.hint().empty()) << c.message;
  }
}

}  // namespace
}  // namespace nibble::checkpoint

// The compressed-tensors layout: that numbers are those of its own loader, and that a model in it is the model.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "checkpoint/load.h"
#include "checkpoint/tensor_source.h"
#include "checkpoint/test_folder.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/op_test.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::TestCheckpoint;

const Path kGoldens = NIBBLE_SOURCE_DIR "/tests/golden/compressed_tensors";

float f32_of(const std::string& bytes) {
  float value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}
std::string bytes_of(float value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// One file of goldens, and linears read from it as a model's would be.
class GoldenFile {
 public:
  GoldenFile(const char* file, const char* config) {
    std::filesystem::create_symlink(std::filesystem::absolute(kGoldens / file), folder_.path() / "model.safetensors");
    files_.emplace(SafetensorsFolder::open(folder_.path()).value());
    const Json section = testing::read_json_file(kGoldens / "configs.json")[config];
    quantization_ = read_quantization({{"quantization_config", section}}, std::nullopt).value();
  }

  ops::Linear linear(const std::string& module, int64_t out, int64_t in) {
    TensorSource source(*files_, quantization_, options_, weights_);
    ops::Linear linear;
    source.linear(module, linear, out, in);
    const Status status = source.finish();  // complains of the other modules of the file
    EXPECT_TRUE(linear.in == in && !linear.weight.empty()) << module << ": " << status.text();
    return linear;
  }
  Tensor tensor(const std::string& name) const {
    const auto* entry = files_->find(name);
    return *entry->file->tensor(*entry->info);
  }
  float number(const std::string& name) const {
    const Tensor scalar = tensor(name);
    uint16_t half = 0;
    float value = 0;
    if (scalar.dtype() == DType::bf16) {
      std::memcpy(&half, scalar.raw(), sizeof half);
      return bf16_to_f32(half);
    }
    std::memcpy(&value, scalar.raw(), sizeof value);
    return value;
  }

 private:
  TemporaryFolder folder_;
  std::optional<SafetensorsFolder> files_;
  Quantization quantization_;
  LoadOptions options_;
  model::Weights weights_;
};

/// Equal, or one BF16 step apart.
bool neighbours(float a, float b) {
  const auto order = [](float x) {
    const uint16_t bits = f32_to_bf16(x);
    return bits & 0x8000 ? -static_cast<int>(bits & 0x7FFF) : static_cast<int>(bits);
  };
  return std::abs(order(a) - order(b)) <= 1;
}

/// The decoded weights against the loader's bf16(e2m1(q) * fl(s / gs)).
void expect_nvfp4_of_loader(GoldenFile& golden, const std::string& module, int64_t out, int64_t in) {
  const ops::Linear w = golden.linear(module, out, in);
  ASSERT_EQ(w.format, ops::WeightFormat::nvfp4);
  test::TestContext context;
  const OwnedTensor decoded(DType::f32, {out, in});
  ops::nvfp4_dequantize(context.cx, w.weight, w.block_scale, w.tensor_scale, decoded.view);
  const float gs = golden.number(module + ".weight_global_scale");
  EXPECT_EQ(w.tensor_scale, 1 / gs);
  const Tensor codes = golden.tensor(module + ".weight_packed"), scales = golden.tensor(module + ".weight_scale");
  int64_t differ = 0;
  for (int64_t i = 0; i < out * in; ++i) {
    const auto code = static_cast<uint8_t>(codes.u8()[i / 2] >> (i % 2 * 4) & 0xF);
    const float theirs = round_to_bf16(e2m1_to_f32(code) * (e4m3_to_f32(scales.u8()[i / 16]) / gs));
    const float ours = decoded.view.f32()[i];
    ASSERT_TRUE(neighbours(theirs, ours)) << module << " " << i << ": " << theirs << " and " << ours;
    differ += theirs != round_to_bf16(ours);
  }
  EXPECT_EQ(differ, 0) << module;  // the goldens' README: none for these files
}

TEST(CompressedTensors, Nvfp4IsWhatTheLoaderMakesOfIt) {
  GoldenFile golden("rtn_w4a16.safetensors", "lc_rtn_w4a16");
  expect_nvfp4_of_loader(golden, "model.layers.3.self_attn.k_proj", 256, 256);
  expect_nvfp4_of_loader(golden, "model.layers.0.linear_attn.in_proj_z", 256, 256);
  EXPECT_EQ(golden.linear("model.layers.3.self_attn.k_proj", 256, 256).inputs, ops::InputRounding::none);
}

TEST(CompressedTensors, MixedFormatsAreWhatTheLoaderMakesOfThem) {
  GoldenFile golden("mixed_fp8_nvfp4.safetensors", "lc_mixed_fp8_nvfp4");
  expect_nvfp4_of_loader(golden, "model.layers.0.mlp.gate_proj", 768, 256);
  for (const std::string module : {"model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.v_proj"}) {
    const ops::Linear w = golden.linear(module, 256, 256);
    ASSERT_EQ(w.format, ops::WeightFormat::fp8);
    EXPECT_EQ(w.inputs, ops::InputRounding::fp8);
    EXPECT_EQ(w.input_scale, golden.number(module + ".input_scale"));
    const float scale = golden.number(module + ".weight_scale");
    EXPECT_EQ(w.tensor_scale, scale);
    EXPECT_EQ(std::memcmp(w.weight.raw(), golden.tensor(module + ".weight").raw(), w.weight.bytes()), 0);
  }
}

// The input scales of the W4A4 file, beside the weights of the W4A16 one, whose bytes are the same there.
TEST(CompressedTensors, InputScalesDivide) {
  const Result<Safetensors> file = Safetensors::open(kGoldens / "rtn_w4a4.safetensors");
  ASSERT_TRUE(file.ok());
  int count = 0;
  for (const TensorInfo& info : file->tensors()) {
    ASSERT_TRUE(info.name.ends_with(".input_global_scale"));
    const float gs = *file->tensor(info)->f32(), scale = 1 / gs;
    EXPECT_GT(scale, 1e-5f);
    EXPECT_LT(scale, 1.0f);  // an amax below 2688
    ++count;
  }
  EXPECT_EQ(count, 50);
}

/// The same numbers in the other layout: codes and scales as they are, scalars inverted. Those of the source become
/// what comes back, so that both folders hold the same.
void to_compressed_tensors(TestCheckpoint& source, TestCheckpoint& out, bool inputs) {
  out = source;
  for (auto& [name, blob] : source.tensors) {
    const bool tensor_scale = name.ends_with(".weight_scale_2"), input_scale = name.ends_with(".input_scale");
    if (blob.dtype == "U8") {
      out.tensors[name + "_packed"] = blob;
      out.tensors.erase(name);
    } else if (tensor_scale || input_scale) {
      const float global = 1 / f32_of(blob.bytes);
      blob.bytes = bytes_of(1 / global);
      const std::string module = name.substr(0, name.rfind('.'));
      out.tensors.erase(name);
      out.tensors[module + (tensor_scale ? ".weight_global_scale" : ".input_global_scale")] = {
          "F32", {1}, bytes_of(global)};
    }
  }
  out.config["quantization_config"] =
      testing::read_json_file(kGoldens / "configs.json")[inputs ? "hand_w4a4" : "hand_w4a16"];
}

TEST(CompressedTensors, TheSameNumbersGiveTheSameLogits) {
  for (const bool inputs : {false, true}) {
    TestCheckpoint modelopt = TestCheckpoint::micro_nvfp4(inputs ? "NVFP4" : "W4A16_NVFP4"), compressed;
    to_compressed_tensors(modelopt, compressed, inputs);
    const TemporaryFolder first, second;
    modelopt.write(first.path());
    // A converter leaves this file behind; it says nothing of the new layout.
    compressed.files["hf_quant_config.json"] = R"({"quantization":{"quant_algo":"W4A8_AWQ"}})";
    compressed.write(second.path());
    const Result<LoadedModel> a = load_checkpoint(first.path()), b = load_checkpoint(second.path());
    ASSERT_TRUE(a.ok()) << a.status().text();
    ASSERT_TRUE(b.ok()) << b.status().text();
    EXPECT_EQ(testing::logits(*a), testing::logits(*b));
    EXPECT_EQ(b->quantization.algo, "nvfp4-pack-quantized");
    const ops::Linear& up = b->weights.blocks[0].mlp.up_proj;
    EXPECT_EQ(up.inputs, inputs ? ops::InputRounding::nvfp4 : ops::InputRounding::none);
  }
}

TEST(CompressedTensors, EachFaultIsOneLineWithAHint) {
  const std::string up = "model.layers.0.mlp.up_proj";
  const struct {
    const char* message;
    void (*breaks)(TestCheckpoint&, const std::string& up);
  } cases[] = {
      {"lm_head.weight: expected nvfp4-pack-quantized as quantization_config says, got [160,64] f32",
       [](auto& c, auto&) { c.config["quantization_config"]["ignore"].erase(0); }},
      {".weight: expected [96,64] bf16, f16 or f32, got [96,32] u8",
       [](auto& c, auto& up) { c.config["quantization_config"]["ignore"].push_back(up); }},
      {"weight_global_scale: expected [1] f32, got [] f32",
       [](auto& c, auto& up) { c.tensors[up + ".weight_global_scale"].shape.clear(); }},
      {"weight_global_scale: expected [1] f32, got no such tensor",
       [](auto& c, auto& up) { c.tensors.erase(up + ".weight_global_scale"); }},
      {"weight_global_scale: expected 2688 over the largest weight, got 0.0001",
       [](auto& c, auto& up) { c.tensors[up + ".weight_global_scale"].bytes = bytes_of(1e-4f); }},
      {"weight_global_scale: expected a positive number, got inf",
       [](auto& c, auto& up) { c.tensors[up + ".weight_global_scale"].bytes = bytes_of(INFINITY); }},
      {"weight_scale: expected [96,4] f8e4m3, got [96,4] u8",
       [](auto& c, auto& up) { c.tensors[up + ".weight_scale"].dtype = "U8"; }},
      {"weight_packed: expected [96,32] u8, got no such tensor",
       [](auto& c, auto& up) { c.tensors.erase(up + ".weight_packed"); }},
      {"input_global_scale: expected [1] f32, got no such tensor",
       [](auto& c, auto&) {
         c.config["quantization_config"] = testing::read_json_file(kGoldens / "configs.json")["hand_w4a4"];
       }},
      {"lm_head: expected nvfp4-pack-quantized as quantization_config says, got a head that is the embedding",
       [](auto& c, auto&) {
         c.config["tie_word_embeddings"] = true;
         c.tensors.erase("lm_head.weight");
         c.config["quantization_config"]["ignore"].erase(0);
       }},
      {"up_proj.weight_g_idx: expected no such tensor",
       [](auto& c, auto& up) {
         c.tensors[up + ".weight_g_idx"] = {"F32", {1}, bytes_of(0)};
       }},
  };
  TestCheckpoint source = TestCheckpoint::micro_nvfp4(), whole;
  to_compressed_tensors(source, whole, false);
  const TemporaryFolder folder;
  for (const auto& c : cases) {
    TestCheckpoint broken = whole;
    c.breaks(broken, up);
    broken.write(folder.path());
    const Status status = load_checkpoint(folder.path()).status();
    EXPECT_NE(status.message().find(c.message), std::string::npos) << c.message << ": " << status.text();
    EXPECT_FALSE(status.hint().empty()) << c.message;
  }
  // Known companions that change nothing.
  whole.tensors[up + ".weight_zero_point"] = {"F32", {1}, bytes_of(0)};
  whole.tensors[up + ".input_global_scale"] = {"F32", {1}, bytes_of(3)};
  whole.write(folder.path());
  EXPECT_TRUE(load_checkpoint(folder.path()).ok()) << load_checkpoint(folder.path()).status().text();
}

// Flipped bytes anywhere in config or header: an answer, never a crash.
TEST(CompressedTensors, SurvivesMutatedFolders) {
  TestCheckpoint source = TestCheckpoint::micro_nvfp4("NVFP4"), whole;
  to_compressed_tensors(source, whole, true);
  const TemporaryFolder folder;
  whole.write(folder.path());
  ASSERT_TRUE(load_checkpoint(folder.path()).ok());
  Rng rng(22);
  int accepted = 0;
  for (int round = 0; round < 300; ++round) {
    const char* name = round % 3 == 0 ? "model.safetensors" : "config.json";
    const std::string before = *read_file(folder.path() / name);
    std::string after = before;
    const auto reach = static_cast<uint32_t>(std::min<size_t>(after.size(), 9000));
    for (uint32_t n = 1 + rng.below(3); n > 0; --n) {
      after[rng.below(reach)] = static_cast<char>(rng.below(4) == 0 ? rng.below(256) : '0' + rng.below(10));
    }
    testing::write_plain(folder.path() / name, after);
    accepted += load_checkpoint(folder.path()).ok();
    testing::write_plain(folder.path() / name, before);
  }
  EXPECT_GT(accepted, 10);
  EXPECT_LT(accepted, 290);
}

}  // namespace
}  // namespace nibble::checkpoint

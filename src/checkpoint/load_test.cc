#include "checkpoint/load.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "checkpoint/test_folder.h"
#include "model/names.h"
#include "ops/quant/nvfp4.h"
#include "tensor/numeric.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::Blob;
using testing::TestCheckpoint;

constexpr const char* kTinyVoice = NIBBLE_SOURCE_DIR "/models/tiny-voice";
const std::string kUp = "model.layers.0.mlp.up_proj";

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

const model::MlpWeights& mlp0(const LoadedModel& m) {
  return m.weights.blocks[0].mlp;
}

TEST(Load, ReadsTheBundledModelInPlace) {
  Result<LoadedModel> m = load_checkpoint(kTinyVoice);
  ASSERT_TRUE(m.ok()) << m.status().text();
  const model::Weights& w = m->weights;
  EXPECT_EQ(w.blocks.size(), 8u);
  EXPECT_EQ(w.prefix, "model.");
  EXPECT_FALSE(w.tied);
  EXPECT_EQ(w.embed.shape(), (Shape{2048, 256}));
  EXPECT_EQ(w.lm_head.format, ops::WeightFormat::bf16);
  EXPECT_EQ(m->format.format, "bf16");
  EXPECT_EQ(m->format.text_parameters, 8'413'208u);
  EXPECT_EQ(m->format.file_bytes, 16'826'416u);
  EXPECT_EQ(m->format.dtype_bytes.size(), 1u);
  EXPECT_EQ(m->fingerprint.size(), 8u);
  EXPECT_EQ(m->generation.stop_ids, (std::vector<int32_t>{1556, 1554}));
  EXPECT_FALSE(m->quantization.quantized());
  // Matrices lie in the mapped files; vectors are f32.
  const auto* in_file = static_cast<const std::byte*>(mlp0(*m).up_proj.weight.raw());
  bool inside = false;
  for (const MappedFile& file : w.mappings) {
    inside |= in_file >= file.bytes().data() && in_file < file.bytes().data() + file.bytes().size();
  }
  EXPECT_TRUE(inside);
  EXPECT_EQ(w.blocks[0].gdn->conv.shape(), (Shape{512, 4}));
  EXPECT_EQ(w.blocks[0].gdn->a_log.dtype(), DType::f32);
  EXPECT_EQ(load_checkpoint(kTinyVoice)->fingerprint, m->fingerprint);
}

TEST(Load, ViewsSurviveMovingTheModel) {
  Result<LoadedModel> m = load_checkpoint(NIBBLE_SOURCE_DIR "/tests/golden/micro");
  ASSERT_TRUE(m.ok()) << m.status().text();
  const float expected = m->weights.final_norm.f32()[0];
  LoadedModel moved = std::move(*m);
  EXPECT_EQ(moved.weights.final_norm.f32()[0], expected);
  EXPECT_EQ(moved.format.format, "f32");
  EXPECT_TRUE(std::isfinite(moved.weights.lm_head.weight.f32()[5]));
}

TEST(Load, ATiedHeadViewsTheEmbedding) {
  Result<LoadedModel> m = load_checkpoint(NIBBLE_SOURCE_DIR "/tests/golden/micro_tied");
  ASSERT_TRUE(m.ok()) << m.status().text();
  EXPECT_TRUE(m->weights.tied);
  EXPECT_EQ(m->weights.lm_head.weight.raw(), m->weights.embed.raw());

  // A head beside it is not used; tie_word_embeddings absent means: as the tensors say.
  TestCheckpoint c = TestCheckpoint::micro("micro_tied");
  c.tensors["lm_head.weight"] = c.tensors["model.embed_tokens.weight"];
  const TemporaryFolder folder;
  c.write(folder.path());
  EXPECT_TRUE(load_checkpoint(folder.path())->weights.tied);
  c.config.erase("tie_word_embeddings");
  c.write(folder.path());
  EXPECT_FALSE(load_checkpoint(folder.path())->weights.tied);
  c.tensors.erase("lm_head.weight");
  c.write(folder.path());
  EXPECT_TRUE(load_checkpoint(folder.path())->weights.tied);
}

TEST(Load, AcceptsAnyMixOfConfigFormAndPrefix) {
  const TestCheckpoint original = TestCheckpoint::micro();
  for (const bool wrap_config : {false, true}) {
    for (const bool wrap_names : {false, true}) {
      TestCheckpoint c = original;
      if (wrap_config) {
        Json text = c.config;
        c.config = {{"model_type", "qwen3_5"}, {"text_config", text}, {"tie_word_embeddings", false}};
      }
      if (wrap_names) {
        c.tensors.clear();
        for (const auto& [name, blob] : original.tensors) {
          c.tensors[name.starts_with("model.") ? "model.language_model." + name.substr(6) : name] = blob;
        }
        c.tensors["model.visual.patch_embed.proj.weight"] = {"F32", {1, 1, 1, 1, 1}, floats({1})};
        c.tensors["mtp.norm.weight"] = {"F32", {1}, floats({1})};
      }
      const TemporaryFolder folder;
      c.write(folder.path());
      Result<LoadedModel> m = load_checkpoint(folder.path());
      ASSERT_TRUE(m.ok()) << m.status().text();
      EXPECT_EQ(m->weights.prefix, wrap_names ? "model.language_model." : "model.");
      EXPECT_EQ(m->format.has_vision, wrap_names);
      EXPECT_EQ(m->format.has_mtp, wrap_names);
    }
  }
}

// F16 widens exactly, and odd offsets in the file change nothing.
TEST(Load, ReadsF16AndUnalignedTensors) {
  TestCheckpoint c = TestCheckpoint::micro();
  c.tensors["a.odd"] = {"U8", {3}, "xyz"};  // sorts first: everything behind it is misaligned
  Blob& up = c.tensors[kUp + ".weight"];
  const std::string wide = up.bytes;
  std::string narrow;
  for (size_t i = 0; i < wide.size(); i += 4) {
    float x = 0;
    std::memcpy(&x, wide.data() + i, 4);
    const uint16_t half = f32_to_f16(x);
    narrow.append(reinterpret_cast<const char*>(&half), 2);
  }
  up.dtype = "F16";
  up.bytes = narrow;
  const TemporaryFolder folder;
  c.write(folder.path());
  Result<LoadedModel> m = load_checkpoint(folder.path());
  ASSERT_TRUE(m.ok()) << m.status().text();
  const ops::Linear& linear = mlp0(*m).up_proj;
  EXPECT_EQ(linear.format, ops::WeightFormat::f32);
  for (int64_t i = 0; i < linear.weight.elements(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, narrow.data() + i * 2, 2);
    ASSERT_EQ(linear.weight.f32()[i], f16_to_f32(half));
  }
  EXPECT_TRUE(is_aligned(m->weights.embed));
  EXPECT_EQ(std::memcmp(m->weights.embed.raw(), c.tensors["model.embed_tokens.weight"].bytes.data(),
                        m->weights.embed.bytes()),
            0);
}

TEST(Load, ReadsNvfp4AsWritten) {
  for (const std::string algo : {"NVFP4", "W4A16_NVFP4"}) {
    const TestCheckpoint c = TestCheckpoint::micro_nvfp4(algo);
    const TemporaryFolder folder;
    c.write(folder.path());
    Result<LoadedModel> m = load_checkpoint(folder.path());
    ASSERT_TRUE(m.ok()) << m.status().text();
    EXPECT_EQ(m->format.format, "nvfp4");
    EXPECT_EQ(m->quantization.algo, algo);
    const ops::Linear& up = mlp0(*m).up_proj;
    EXPECT_EQ(up.format, ops::WeightFormat::nvfp4);
    EXPECT_EQ(up.out, 96);
    EXPECT_EQ(up.in, 64);
    EXPECT_EQ(std::memcmp(up.weight.raw(), c.tensors.at(kUp + ".weight").bytes.data(), up.weight.bytes()), 0);
    EXPECT_EQ(std::memcmp(up.block_scale.raw(), c.tensors.at(kUp + ".weight_scale").bytes.data(), 96 * 4), 0);
    EXPECT_GT(up.tensor_scale, 0);
    EXPECT_EQ(up.input_scale, algo == "NVFP4" ? 0.01f : 0.0f);
    EXPECT_EQ(m->weights.blocks[0].gdn->in_proj_a.format, ops::WeightFormat::f32);
  }
}

TEST(Load, ReportsProgressAndStops) {
  uint64_t last = 0, total = 0;
  LoadOptions options;
  ThreadPool pool(2);
  options.pool = &pool;
  options.progress = [&](const ProgressUpdate& update) {
    EXPECT_GT(update.done, last);
    last = update.done;
    total = update.total;
  };
  ASSERT_TRUE(load_checkpoint(kTinyVoice, options).ok());
  EXPECT_GT(last, 16'000'000u);
  EXPECT_LE(last, total);
  options.progress = [&](const ProgressUpdate&) { options.cancel.cancel(); };
  EXPECT_EQ(load_checkpoint(kTinyVoice, options).status().code(), Code::cancelled);
}

struct Broken {
  const char* name;
  Code code;
  const char* message;  // a part of it
  bool quantized;
  std::function<void(TestCheckpoint&)> breaks;
};

std::vector<Broken> broken_cases() {
  const std::string gate = "model.layers.0.mlp.gate_proj.weight";
  return {
      {"shape", Code::corrupt,
       "model.layers.0.mlp.up_proj.weight: expected [96,64] bf16, f16 or f32, got [64,96] f32 (model.safetensors)",
       false,
       [](auto& c) {
         c.tensors[kUp + ".weight"].shape = {64, 96};
       }},
      {"dtype", Code::corrupt,
       "model.layers.0.mlp.up_proj.weight: expected [96,64] bf16, f16 or f32, got [96,64] i32 (model.safetensors)",
       false, [](auto& c) { c.tensors[kUp + ".weight"].dtype = "I32"; }},
      {"unknown dtype", Code::corrupt, "expected [96,64] bf16, f16 or f32, got [96,32] I64", false,
       [](auto& c) {
         c.tensors[kUp + ".weight"] = {"I64", {96, 32}, std::string(96 * 32 * 8, '\0')};
       }},
      {"fp8", Code::corrupt, "up_proj.weight: expected [96,64] bf16, f16 or f32, got [96,64] f8e4m3", false,
       [](auto& c) {
         c.tensors[kUp + ".weight"] = {"F8_E4M3", {96, 64}, std::string(96 * 64, '\0')};
       }},
      {"norm shape", Code::corrupt, "model.norm.weight: expected [64] bf16, f16 or f32, got [63] f32", false,
       [](auto& c) {
         c.tensors["model.norm.weight"] = {"F32", {63}, std::string(63 * 4, '\0')};
       }},
      {"missing", Code::corrupt, "model.layers.0.mlp.up_proj.weight: expected [96,64] bf16, f16 or f32, got no such",
       false, [](auto& c) { c.tensors.erase(kUp + ".weight"); }},
      {"no embedding", Code::corrupt, "expected model.embed_tokens.weight or model.language_model.", false,
       [](auto& c) { c.tensors.erase("model.embed_tokens.weight"); }},
      {"untied without head", Code::corrupt, "lm_head.weight: expected [160,64] because tie_word_embeddings is false",
       false, [](auto& c) { c.tensors.erase("lm_head.weight"); }},
      {"more layers than config", Code::unsupported, "expected no such tensor in a model of 3 layers", false,
       [](auto& c) {
         c.config["num_hidden_layers"] = 3;
         c.config["layer_types"].erase(3);
       }},
      {"bias", Code::unsupported, "model.layers.0.mlp.up_proj.bias: expected no such tensor", false,
       [](auto& c) {
         c.tensors[kUp + ".bias"] = {"F32", {1}, floats({1})};
       }},
      {"fused", Code::unsupported, "model.layers.0.mlp.gate_up_proj.weight: expected model.layers.0.mlp.", false,
       [gate](auto& c) {
         c.tensors["model.layers.0.mlp.gate_up_proj.weight"] = c.tensors[gate];
         c.tensors.erase(gate);
       }},
      {"compressed-tensors", Code::unsupported, "model.layers.0.mlp.up_proj.weight_packed: expected", false,
       [](auto& c) {
         c.tensors[kUp + ".weight_packed"] = {"U8", {96, 32}, std::string(96 * 32, '\0')};
         c.tensors.erase(kUp + ".weight");
       }},
      {"NaN", Code::corrupt, "weight not finite: model.layers.0.mlp.up_proj.weight[1,2]: expected a number, got nan",
       false, [](auto& c) { c.tensors[kUp + ".weight"].bytes.replace(66 * 4, 4, floats({NAN})); }},
      {"infinity", Code::corrupt, "weight not finite: model.norm.weight[3]: expected a number, got inf", false,
       [](auto& c) { c.tensors["model.norm.weight"].bytes.replace(12, 4, floats({INFINITY})); }},
      {"model type", Code::unsupported, "model_type: expected qwen3_5 or qwen3_5_text, got \"llama\"", false,
       [](auto& c) { c.config["model_type"] = "llama"; }},
      {"quantized without config", Code::corrupt,
       "in_proj_qkv.weight: expected [192,64] bf16, f16 or f32, got [192,32] u8", true,
       [](auto& c) { c.config.erase("quantization_config"); }},
      {"excluded and quantized", Code::corrupt, "as the list of excluded modules says, got [96,32] u8", true,
       [](auto& c) { c.config["quantization_config"]["ignore"].push_back("model.language_model.layers.0.mlp*"); }},
      {"claimed and not quantized", Code::corrupt, "lm_head.weight: expected W4A16_NVFP4 as quantization_config says",
       true, [](auto& c) { c.config["quantization_config"]["ignore"].erase(0); }},
      {"no block scales", Code::corrupt, "up_proj.weight_scale: expected [96,4] f8e4m3, got no such tensor", true,
       [](auto& c) { c.tensors.erase(kUp + ".weight_scale"); }},
      {"block scale shape", Code::corrupt, "up_proj.weight_scale: expected [96,4] f8e4m3, got [4,96] f8e4m3", true,
       [](auto& c) {
         c.tensors[kUp + ".weight_scale"].shape = {4, 96};
       }},
      {"block scale dtype", Code::corrupt, "up_proj.weight_scale: expected [96,4] f8e4m3, got [96,4] u8", true,
       [](auto& c) { c.tensors[kUp + ".weight_scale"].dtype = "U8"; }},
      {"NaN block scale", Code::corrupt, "up_proj.weight_scale[1,1]: expected a scale byte in 0x00..0x7E, got 0x7F",
       true, [](auto& c) { c.tensors[kUp + ".weight_scale"].bytes[5] = '\x7f'; }},
      {"negative block scale", Code::corrupt,
       "up_proj.weight_scale[0,0]: expected a scale byte in 0x00..0x7E, got 0x81", true,
       [](auto& c) { c.tensors[kUp + ".weight_scale"].bytes[0] = '\x81'; }},
      {"no tensor scale", Code::corrupt, "up_proj.weight_scale_2: expected [] f32, got no such tensor", true,
       [](auto& c) { c.tensors.erase(kUp + ".weight_scale_2"); }},
      {"zero tensor scale", Code::corrupt, "up_proj.weight_scale_2: expected a positive number, got 0", true,
       [](auto& c) { c.tensors[kUp + ".weight_scale_2"].bytes = floats({0}); }},
      {"NaN tensor scale", Code::corrupt, "up_proj.weight_scale_2: expected a positive number, got nan", true,
       [](auto& c) { c.tensors[kUp + ".weight_scale_2"].bytes = floats({NAN}); }},
      {"no input scale", Code::corrupt, ".input_scale: expected [] f32, got no such tensor", true,
       [](auto& c) { c.config["quantization_config"]["quant_algo"] = "NVFP4"; }},
      {"scaled inputs", Code::unsupported, "up_proj.pre_quant_scale: expected no such tensor", true,
       [](auto& c) {
         c.tensors[kUp + ".pre_quant_scale"] = {"F32", {1}, floats({1})};
       }},
      {"other method", Code::unsupported, "quant_method: expected modelopt or compressed-tensors, got gptq", true,
       [](auto& c) { c.config["quantization_config"]["quant_method"] = "gptq"; }},
      {"other algorithm", Code::unsupported, "quant_algo: expected an algorithm of NVFP4 or FP8, got W4A8_NVFP4_FP8",
       true, [](auto& c) { c.config["quantization_config"]["quant_algo"] = "W4A8_NVFP4_FP8"; }},
      {"no layers", Code::corrupt, "quantized_layers: expected a module or more, got none", true,
       [](auto& c) { c.config["quantization_config"]["quant_algo"] = "MIXED_PRECISION"; }},
      {"no factors", Code::unsupported, "svdquant_lora_a: expected the low-rank factors of NVFP4_SVD, got no such",
       true, [](auto& c) { c.config["quantization_config"]["quant_algo"] = "NVFP4_SVD"; }},
      {"quantized head of a tied model", Code::corrupt, "lm_head: expected no quantized head beside", true,
       [](auto& c) {
         c.config["tie_word_embeddings"] = true;
         c.tensors["lm_head.weight"] = {"U8", {160, 32}, std::string(160 * 32, '\0')};
       }},
      {"two opinions", Code::corrupt, "quant_algo: expected W4A16_NVFP4 as in config.json, got NVFP4", true,
       [](auto& c) { c.files["hf_quant_config.json"] = R"({"quantization":{"quant_algo":"NVFP4"}})"; }},
      {"broken generation config", Code::corrupt, "temperature: expected a number in [0,100], got string", false,
       [](auto& c) { c.files["generation_config.json"] = R"({"temperature":"hot"})"; }},
  };
}

TEST(Load, EachFaultIsOneLineWithAHint) {
  const TestCheckpoint plain = TestCheckpoint::micro(), quantized = TestCheckpoint::micro_nvfp4();
  const TemporaryFolder folder;
  for (const Broken& broken : broken_cases()) {
    TestCheckpoint c = broken.quantized ? quantized : plain;
    broken.breaks(c);
    c.write(folder.path());
    const Result<LoadedModel> m = load_checkpoint(folder.path());
    ASSERT_FALSE(m.ok()) << broken.name;
    EXPECT_EQ(m.status().code(), broken.code) << broken.name << ": " << m.status().text();
    EXPECT_NE(m.status().message().find(broken.message), std::string::npos) << broken.name << ": " << m.status().text();
    EXPECT_EQ(m.status().message().find('\n'), std::string::npos) << broken.name;
    EXPECT_FALSE(m.status().hint().empty()) << broken.name;
  }
}

TEST(Load, FoldersWithoutAModel) {
  const TemporaryFolder folder;
  Status status = load_checkpoint(folder.path()).status();
  EXPECT_EQ(status.code(), Code::not_found);
  EXPECT_NE(status.message().find("config.json: expected in the model folder, got an empty folder"), std::string::npos);
  EXPECT_FALSE(status.hint().empty());
  status = load_checkpoint(folder.path() / "none").status();
  EXPECT_EQ(status.code(), Code::not_found);
  TestCheckpoint::micro().write(folder.path());
  EXPECT_EQ(load_checkpoint(folder.path() / "config.json").status().code(), Code::invalid_argument);
  std::filesystem::remove(folder.path() / "model.safetensors");
  EXPECT_EQ(load_checkpoint(folder.path()).status().code(), Code::not_found);
}

TEST(Load, TruncatedAndMissingShards) {
  const TemporaryFolder folder;
  for (const auto& entry : std::filesystem::directory_iterator(kTinyVoice)) {
    const Path name = entry.path().filename();
    if (name == "model-00001-of-00002.safetensors") {
      std::filesystem::create_symlink(std::filesystem::absolute(entry.path()), folder.path() / name);
    } else {
      std::filesystem::copy_file(entry.path(), folder.path() / name);
    }
  }
  ASSERT_TRUE(load_checkpoint(folder.path()).ok());
  const Path second = folder.path() / "model-00002-of-00002.safetensors";
  const auto size = std::filesystem::file_size(second);
  for (const uintmax_t cut : {size - 1, size / 2, uintmax_t{100}, uintmax_t{8}, uintmax_t{0}}) {
    std::filesystem::resize_file(second, cut);
    const Status status = load_checkpoint(folder.path()).status();
    EXPECT_EQ(status.code(), Code::corrupt) << cut;
    EXPECT_NE(status.message().find("(model-00002-of-00002.safetensors)"), std::string::npos) << status.text();
    EXPECT_FALSE(status.hint().empty());
  }
  std::filesystem::remove(second);
  const Status status = load_checkpoint(folder.path()).status();
  EXPECT_EQ(status.code(), Code::corrupt);
  EXPECT_NE(status.message().find("shard missing: expected model-00002-of-00002.safetensors"), std::string::npos);
}

// Flipped bytes anywhere in header, config or side files: an answer, never a crash.
TEST(Load, SurvivesMutatedFolders) {
  const TestCheckpoint original = TestCheckpoint::micro_nvfp4();
  const TemporaryFolder folder;
  original.write(folder.path());
  const auto read = [&](const char* name) { return *read_file(folder.path() / name); };
  testing::write_plain(folder.path() / "generation_config.json",
                       R"({"eos_token_id":[1,2],"temperature":0.6,"top_k":20})");
  testing::write_plain(folder.path() / "tokenizer_config.json",
                       R"({"eos_token":{"content":"<e>"},"added_tokens_decoder":{"7":{"content":"<e>"}}})");
  testing::write_plain(folder.path() / "tokenizer.json", R"({"added_tokens":[{"id":7,"content":"<e>"}],"model":{}})");
  ASSERT_TRUE(load_checkpoint(folder.path()).ok()) << load_checkpoint(folder.path()).status().text();
  Rng rng(21);
  int accepted = 0;
  const char* names[] = {"config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json",
                         "model.safetensors"};
  for (int round = 0; round < 500; ++round) {
    const char* name = names[rng.below(5)];
    const std::string before = read(name);
    std::string after = before;
    const size_t reach = std::min<size_t>(after.size(), 9000);  // of the weights, the header
    for (uint32_t n = 1 + rng.below(3); n > 0; --n) {
      after[rng.below(static_cast<uint32_t>(reach))] =
          static_cast<char>(rng.below(4) == 0 ? rng.below(256) : '0' + rng.below(10));
    }
    testing::write_plain(folder.path() / name, after);
    accepted += load_checkpoint(folder.path()).ok();
    testing::write_plain(folder.path() / name, before);
  }
  EXPECT_GT(accepted, 20);
  EXPECT_LT(accepted, 450);
}

}  // namespace
}  // namespace nibble::checkpoint

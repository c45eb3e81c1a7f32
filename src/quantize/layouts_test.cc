// What stands in the files of either layout, for every format, and the hooks that bring finished linears.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "checkpoint/compressed_tensors_check.h"
#include "checkpoint/load.h"
#include "checkpoint/test_folder.h"
#include "ops/quant/fp8.h"
#include "quantize/quantize.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using checkpoint::testing::read_json_file;
using checkpoint::testing::TestCheckpoint;
using test::TemporaryFolder;

const std::string kUp = "model.layers.0.mlp.up_proj";
const std::string kOut = "model.layers.0.linear_attn.out_proj";

class Layouts : public testing::Test {
 protected:
  Path source() const { return folder_.path() / "source"; }

  SafetensorsFolder quantize(const QuantizeOptions& options, const std::string& name = "output",
                             const TestCheckpoint& model = TestCheckpoint::micro()) {
    model.write(source());
    const Result<QuantizeReport> report = quantize_folder(source(), folder_.path() / name, options, pool_);
    EXPECT_TRUE(report.ok()) << report.status().text();
    Result<SafetensorsFolder> written = SafetensorsFolder::open(folder_.path() / name);
    EXPECT_TRUE(written.ok()) << written.status().text();
    return std::move(written).value();
  }

  static std::string bytes(const SafetensorsFolder& folder, const std::string& name) {
    const SafetensorsFolder::Entry* entry = folder.find(name);
    EXPECT_NE(entry, nullptr) << name;
    if (entry == nullptr) return {};
    const auto span = entry->file->bytes(*entry->info);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }

  static float scalar(const SafetensorsFolder& folder, const std::string& name) {
    const std::string raw = bytes(folder, name);
    float value = NAN;
    EXPECT_EQ(raw.size(), sizeof value) << name;
    if (raw.size() == sizeof value) std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }

  static std::string text(const SafetensorsFolder& folder, const std::string& name) {
    const SafetensorsFolder::Entry* entry = folder.find(name);
    return entry == nullptr ? "none" : entry->info->text();
  }

  // Attention FP8 per tensor, delta rule FP8 per channel, MLP NVFP4; all inputs are rounded but those by channel, which
  // ModelOpt scales by token.
  static QuantizeOptions mixed(Layout layout) {
    QuantizeOptions options;
    options.recipe.rules = {{"self_attn", Format::fp8, Inputs::a8, 0},
                            {"linear_attn", Format::fp8_channel, Inputs::a16, 0},
                            {"mlp", Format::nvfp4, Inputs::a4, 0}};
    options.layout = layout;
    float amax = 1;
    for (const auto& [name, blob] : TestCheckpoint::micro().tensors) {
      if (name.ends_with(".weight")) options.input_amax[name.substr(0, name.size() - 7)] = amax++;
    }
    return options;
  }

  ThreadPool pool_{2};
  TemporaryFolder folder_;
};

TEST_F(Layouts, TheSameNumbersInBoth) {
  const SafetensorsFolder a = quantize(mixed(Layout::modelopt), "modelopt");
  const SafetensorsFolder b = quantize(mixed(Layout::compressed_tensors), "compressed");
  size_t four_bits = 0;
  for (const SafetensorsFolder::Entry& entry : a.tensors()) {
    const std::string& name = entry.info->name;
    if (!name.ends_with(".weight_scale_2")) continue;
    const std::string module = name.substr(0, name.rfind('.'));
    ++four_bits;
    EXPECT_EQ(bytes(a, module + ".weight"), bytes(b, module + ".weight_packed"));
    EXPECT_EQ(bytes(a, module + ".weight_scale"), bytes(b, module + ".weight_scale"));
    for (const auto& [scale, reciprocal] :
         {std::pair(".weight_scale_2", ".weight_global_scale"), std::pair(".input_scale", ".input_global_scale")}) {
      const float there = scalar(a, module + scale), here = scalar(b, module + reciprocal);
      EXPECT_EQ(here, 1 / there);
      const float again = 1 / here;  // to one ulp
      EXPECT_TRUE(again == there || again == std::nextafter(there, 1e30f) || again == std::nextafter(there, 0.f));
      EXPECT_EQ(text(a, module + scale), "[] F32");
      EXPECT_EQ(text(b, module + reciprocal), "[1] F32");
    }
  }
  EXPECT_EQ(four_bits, 12u);
  const std::string query = "model.layers.3.self_attn.q_proj";
  for (const std::string& module : {query, kOut}) {
    for (const char* part : {".weight", ".weight_scale"}) {
      EXPECT_EQ(bytes(a, module + part), bytes(b, module + part)) << module << part;
    }
  }
  EXPECT_EQ(bytes(a, query + ".input_scale"), bytes(b, query + ".input_scale"));
  EXPECT_EQ(text(a, query + ".weight_scale"), "[] F32");
  EXPECT_EQ(text(b, query + ".weight_scale"), "[1] F32");
  EXPECT_EQ(text(b, query + ".input_scale"), "[1] F32");
  EXPECT_EQ(text(a, kOut + ".weight_scale"), fmt::format("[{}] F32", a.find(kOut + ".weight")->info->shape[0]));
  EXPECT_EQ(text(b, kOut + ".weight_scale"), fmt::format("[{},1] F32", a.find(kOut + ".weight")->info->shape[0]));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "compressed/hf_quant_config.json"));
}

TEST_F(Layouts, TheLoaderReadsBothAsTheSameModel) {
  TestCheckpoint::micro().write(source());
  std::vector<std::map<std::string, ops::Linear>> read;
  std::vector<checkpoint::LoadedModel> models;
  for (Layout layout : {Layout::modelopt, Layout::compressed_tensors}) {
    const Path folder = folder_.path() / (layout == Layout::modelopt ? "modelopt" : "compressed");
    const Result<QuantizeReport> report = quantize_folder(source(), folder, mixed(layout), pool_);
    ASSERT_TRUE(report.ok()) << report.status().text();
    Result<checkpoint::LoadedModel> loaded = checkpoint::load_checkpoint(folder);
    ASSERT_TRUE(loaded.ok()) << loaded.status().text();
    EXPECT_EQ(loaded->format.bytes_per_token, report->bytes_per_token);
    std::map<std::string, ops::Linear>& linears = read.emplace_back();
    loaded->weights.for_each_linear(
        [&](std::string_view module, ops::Linear& linear) { linears[std::string(module)] = linear; });
    models.push_back(std::move(loaded).value());
  }
  for (const auto& [module, a] : read[0]) {
    const ops::Linear& b = read[1].at(module);
    EXPECT_EQ(a.format, b.format) << module;
    EXPECT_EQ(a.inputs, b.inputs) << module;
    EXPECT_FLOAT_EQ(a.tensor_scale, b.tensor_scale) << module;
    EXPECT_FLOAT_EQ(a.input_scale, b.input_scale) << module;
    EXPECT_EQ(std::memcmp(a.weight.raw(), b.weight.raw(), a.weight.bytes()), 0) << module;
  }
  EXPECT_EQ(read[0].at(kUp).inputs, ops::InputRounding::nvfp4);
  EXPECT_EQ(read[0].at(kOut).format, ops::WeightFormat::fp8);
  EXPECT_FALSE(read[0].at(kOut).channel_scale.empty());
}

// Per channel with static input scales is a form of compressed-tensors alone.
TEST_F(Layouts, ModelOptScalesInputsOfChannelsByToken) {
  QuantizeOptions options = mixed(Layout::modelopt);
  options.recipe.rules[1].inputs = Inputs::a8;
  TestCheckpoint::micro().write(source());
  EXPECT_EQ(plan_folder(source(), options).status().code(), Code::unsupported);
  options.layout = Layout::compressed_tensors;
  const SafetensorsFolder folder = quantize(options);
  EXPECT_EQ(text(folder, kOut + ".input_scale"), "[1] F32");
}

TEST_F(Layouts, Fp8IsTheOpsArithmetic) {
  const SafetensorsFolder folder = quantize(mixed(Layout::modelopt));
  const TestCheckpoint model = TestCheckpoint::micro();
  Context cx(pool_);
  for (const std::string& module : {std::string("model.layers.3.self_attn.q_proj"), kOut}) {
    const auto& blob = model.tensors.at(module + ".weight");
    const Tensor w = Tensor::constant(blob.bytes.data(), DType::f32, {blob.shape[0], blob.shape[1]});
    const OwnedTensor codes(DType::f8e4m3, w.shape()), scales(DType::f32, {w.dim(0)});
    if (module == kOut) {
      ops::fp8_quantize_channels(cx, w, codes.view, scales.view);
      EXPECT_EQ(bytes(folder, module + ".weight_scale"),
                std::string(static_cast<const char*>(scales.view.raw()), scales.view.bytes()));
    } else {
      const float scale = fp8_scale(ops::tensor_amax(cx, w).amax);
      ops::fp8_quantize(cx, w, scale, codes.view);
      EXPECT_EQ(scalar(folder, module + ".weight_scale"), scale);
    }
    EXPECT_EQ(bytes(folder, module + ".weight"),
              std::string(static_cast<const char*>(codes.view.raw()), codes.view.bytes()));
  }
}

TEST_F(Layouts, FaultsOfACompressedTensorsFolderAreNamed) {
  quantize(mixed(Layout::compressed_tensors), "sound");
  const Path folder = folder_.path() / "sound";
  EXPECT_TRUE(checkpoint::compressed_tensors_problems(folder).empty());
  const Json sound = read_json_file(folder / "config.json");
  const std::string head = "model.layers.0.mlp.gate_proj";
  const std::pair<const char*, std::function<void(Json&)>> faults[] = {
      {"lm_head: unquantized, but a config group claims it",
       [](Json& q) {
         q["config_groups"]["group_0"]["targets"].push_back("lm_head");
         q["ignore"].erase(q["ignore"].begin(), q["ignore"].end());
       }},
      {"model.layers.0.mlp.gate_proj: quantized, but no config group claims it",
       [&](Json& q) { q["ignore"].push_back(head); }},
      {"model.layers.0.mlp.gate_proj: expected 8 bits, as the config says, got [96,32] U8",
       [&](Json& q) { q["config_groups"]["group_0"]["targets"].push_back(head); }},
      {"model.layers.0.mlp.gate_proj.input_global_scale: expected none, as activations are not quantized",
       [](Json& q) { q["config_groups"]["group_2"]["input_activations"] = nullptr; }},
      {"model.layers.9.mlp.gate_proj: expected a weight, as a config group claims it, got none",
       [](Json& q) { q["config_groups"]["group_0"]["targets"].push_back("model.layers.9.mlp.gate_proj"); }},
      {"quant_method: expected compressed-tensors, got \"modelopt\"", [](Json& q) { q["quant_method"] = "modelopt"; }},
      {"config_groups: expected an object, got none", [](Json& q) { q["config_groups"] = 1; }},
      {"config_groups: group_0: weights: num_bits: expected 4 or 8, got none",
       [](Json& q) { q["config_groups"]["group_0"]["weights"] = 1; }},
  };
  for (const auto& [expected, make] : faults) {
    Json config = sound;
    make(config["quantization_config"]);
    checkpoint::testing::write_plain(folder / "config.json", config.dump());
    bool named = false;
    std::string all;
    for (const Status& problem : checkpoint::compressed_tensors_problems(folder)) {
      named = named || problem.message() == expected;
      all += problem.text() + "\n";
    }
    EXPECT_TRUE(named) << expected << "\ngot\n" << all;
  }
}

TEST_F(Layouts, AnUntiedHeadIsWrittenAndSaidSoEverywhere) {
  const TestCheckpoint tied = TestCheckpoint::micro("micro_tied");
  TestCheckpoint wrapped;
  wrapped.config = {{"architectures", {"Qwen3_5ForConditionalGeneration"}},
                    {"model_type", "qwen3_5"},
                    {"text_config", tied.config},
                    {"vision_config", {{"depth", 1}}}};
  wrapped.config["text_config"]["tie_word_embeddings"] = true;
  for (const auto& [name, blob] : tied.tensors) wrapped.tensors["model.language_model." + name.substr(6)] = blob;
  for (const TestCheckpoint* model : {&tied, static_cast<const TestCheckpoint*>(&wrapped)}) {
    const bool vl = model == &wrapped;
    QuantizeOptions options;
    options.recipe.rules = {{"*", Format::nvfp4, Inputs::a16, 0}, {"lm_head", Format::nvfp4, Inputs::a16, 0}};
    options.untie = true;
    const std::string name = vl ? "vl" : "text";
    const SafetensorsFolder folder = quantize(options, name, *model);
    EXPECT_NE(folder.find("lm_head.weight_scale_2"), nullptr);
    EXPECT_NE(folder.find(vl ? "model.language_model.embed_tokens.weight" : "model.embed_tokens.weight"), nullptr);
    const Json config = read_json_file(folder_.path() / name / "config.json");
    EXPECT_EQ(config["tie_word_embeddings"], false);
    if (vl) {
      EXPECT_EQ(config["text_config"]["tie_word_embeddings"], false);
    }
    const Json ignore = config["quantization_config"]["ignore"];
    EXPECT_EQ(std::find(ignore.begin(), ignore.end(), "lm_head"), ignore.end());
  }
}

TEST_F(Layouts, SolvedLinearsAreWrittenAsTheyAre) {
  for (const bool low_rank : {false, true}) {
    const int64_t rank = low_rank ? 8 : 0;
    QuantizeOptions options;
    options.recipe.rules = {{"mlp", Format::nvfp4, Inputs::a4, 0}};
    if (low_rank) options.recipe.transform = Transform::svdquant;
    options.recipe.rank = 8;
    OwnedTensor codes, scales, a, b;
    std::vector<std::string> asked;
    options.solved = [&](const std::string& module) -> Result<std::optional<SolvedLinear>> {
      asked.push_back(module);
      const bool down = module.ends_with("down_proj");
      const int64_t out = down ? 64 : 96, in = down ? 96 : 64;
      codes = OwnedTensor(DType::u8, {out, in / 2});
      scales = OwnedTensor(DType::f8e4m3, {out, in / 16});
      std::memset(codes.view.raw(), 0x21, codes.view.bytes());
      std::memset(scales.view.raw(), 0x38, scales.view.bytes());
      SolvedLinear solved;
      solved.linear.format = ops::WeightFormat::nvfp4;
      solved.linear.out = out;
      solved.linear.in = in;
      solved.linear.weight = codes.view;
      solved.linear.block_scale = scales.view;
      solved.linear.tensor_scale = 0.25f;
      solved.linear.input_scale = 0.5f;
      if (low_rank) {
        a = OwnedTensor(DType::bf16, {rank, in});
        b = OwnedTensor(DType::bf16, {out, rank});
        solved.linear.low_rank_a = a.view;
        solved.linear.low_rank_b = b.view;
      }
      return std::optional<SolvedLinear>(solved);
    };
    const SafetensorsFolder folder = quantize(options, low_rank ? "svd" : "plain");
    EXPECT_EQ(asked.size(), 12u);
    EXPECT_EQ(bytes(folder, kUp + ".weight"), std::string(96 * 32, '\x21'));
    EXPECT_EQ(scalar(folder, kUp + ".weight_scale_2"), 0.25f);
    EXPECT_EQ(scalar(folder, kUp + ".input_scale"), 0.5f);
    EXPECT_EQ(text(folder, kUp + ".svdquant_lora_a"), low_rank ? "[8,64] BF16" : "none");
    EXPECT_EQ(text(folder, kUp + ".svdquant_lora_b"), low_rank ? "[96,8] BF16" : "none");
    const Json config = read_json_file(folder_.path() / (low_rank ? "svd" : "plain") / "config.json");
    EXPECT_EQ(config["quantization_config"]["quant_algo"], low_rank ? "NVFP4_SVD" : "NVFP4");
  }
}

}  // namespace
}  // namespace nibble::quantize

// Folders as other exporters write them: the same numbers in their layout and in ours give the same logits.
#include <gtest/gtest.h>

#include "checkpoint/compressed_tensors_export.h"
#include "checkpoint/doctor/doctor.h"
#include "checkpoint/linear_layout.h"
#include "checkpoint/load.h"
#include "checkpoint/modelopt_export.h"
#include "checkpoint/test_folder.h"
#include "model/names.h"
#include "ops/quant/nvfp4.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::Blob;
using testing::TestCheckpoint;

constexpr float kScale = 0x1p-10f, kInputScale = 0x1p-7f;  // powers of two: exact in either layout

Blob scalar(float value, std::vector<int64_t> shape = {}) {
  return {"F32", std::move(shape), std::string(reinterpret_cast<const char*>(&value), sizeof value)};
}

bool is_mlp(const std::string& module) {
  return module.find(".mlp.") != std::string::npos;
}

// The numbers: NVFP4 of micro, with `fp8` attention and delta rule in E4M3, in ModelOpt's tensors under text names.
struct Numbers {
  TestCheckpoint model;
  QuantizedModules modules;
};

Numbers numbers(bool fp8, Inputs inputs) {
  Numbers out{TestCheckpoint::micro_nvfp4(), {}};
  std::map<std::string, Blob> added;
  for (auto& [name, blob] : out.model.tensors) {
    if (!name.ends_with(".weight") || blob.shape.size() < 2) continue;
    const std::string module(model::module_name(name));
    if (blob.dtype != "U8") {
      out.modules.unquantized.push_back(module);
      continue;
    }
    if (fp8 && !is_mlp(module)) {
      const int64_t n = blob.shape[0], k = blob.shape[1] * 2;
      std::string codes(static_cast<size_t>(n * k), '\0');
      for (size_t i = 0; i < codes.size(); ++i)
        codes[i] = static_cast<char>((i * 37 + 11) % 0x70 + (i % 3 == 0 ? 0x80 : 0));
      blob = {"F8_E4M3", {n, k}, codes};
      added[module + ".weight_scale"] = scalar(kScale);
      added[module + ".input_scale"] = scalar(kInputScale);
      out.modules.quantized.push_back({module, Format::fp8, Inputs::a8, false});
      continue;
    }
    added[module + ".weight_scale_2"] = scalar(kScale);
    if (inputs == Inputs::a4) added[module + ".input_scale"] = scalar(kInputScale);
    out.modules.quantized.push_back({module, Format::nvfp4, inputs, false});
  }
  for (auto& [name, blob] : added) {
    out.model.tensors[name] = blob;
    if (name.ends_with(".weight_scale") && blob.shape.empty()) continue;
  }
  std::erase_if(out.model.tensors, [&](const auto& item) {
    const std::string module = item.first.substr(0, item.first.rfind('.'));
    return fp8 && !is_mlp(module) && item.first.ends_with(".weight_scale_2");
  });
  out.model.config.erase("quantization_config");
  return out;
}

// Under our own exporter's config.
TestCheckpoint ours(const Numbers& numbers) {
  TestCheckpoint model = numbers.model;
  model.config["quantization_config"] = quantization_config(numbers.modules);
  model.files[std::string(kHfQuantConfigFile)] = hf_quant_config(numbers.modules).dump();
  return model;
}

// The wrapped form around a text model, with a piece of a vision tower and of a draft head, as published folders have.
void wrap(TestCheckpoint& model) {
  std::map<std::string, Blob> tensors;
  for (auto& [name, blob] : model.tensors) {
    tensors[name.starts_with("model.") ? "model.language_model." + name.substr(6) : name] = std::move(blob);
  }
  const std::string bytes(2 * 32 * 32, '\0');
  tensors["model.visual.blocks.0.attn.qkv.weight"] = {"BF16", {32, 32}, bytes};
  tensors["model.visual.pos_embed.weight"] = {"BF16", {32, 32}, bytes};
  tensors["mtp.fc.weight"] = {"BF16", {32, 32}, bytes};
  model.tensors = std::move(tensors);
  Json text = model.config;
  text["model_type"] = "qwen3_5_text";
  text.erase("architectures");
  model.config = {{"architectures", {"Qwen3_5ForConditionalGeneration"}},
                  {"model_type", "qwen3_5"},
                  {"tie_word_embeddings", text["tie_word_embeddings"]},
                  {"text_config", text}};
}

std::string wrapped_name(const std::string& module) {
  return module.starts_with("model.") ? "model.language_model." + module.substr(6) : module;
}

// The names and shapes of compressed-tensors.
void to_compressed_tensors(TestCheckpoint& model) {
  std::map<std::string, Blob> tensors;
  for (auto& [name, blob] : model.tensors) {
    const std::string module(name.substr(0, name.rfind('.')));
    const bool four_bits = model.tensors.contains(module + ".weight_scale_2");
    Blob one = blob;
    if (one.dtype == "F32" && one.shape.empty()) one.shape = {1};
    if (four_bits && name.ends_with(".weight")) {
      tensors[module + ".weight_packed"] = one;
    } else if (name.ends_with(".weight_scale_2")) {
      tensors[module + ".weight_global_scale"] = scalar(1 / kScale, {1});
    } else if (four_bits && name.ends_with(".input_scale")) {
      tensors[module + ".input_global_scale"] = scalar(1 / kInputScale, {1});
    } else {
      tensors[name] = one;
    }
  }
  model.tensors = std::move(tensors);
}

std::vector<float> logits_of(const TestCheckpoint& model, size_t shards = 1) {
  TemporaryFolder folder;
  model.write(folder.path(), shards);
  const Result<LoadedModel> loaded = load_checkpoint(folder.path(), {});
  EXPECT_TRUE(loaded.ok()) << loaded.status().text();
  return loaded.ok() ? testing::logits(*loaded) : std::vector<float>();
}

// What the doctor says of quantization: whatever else is missing in the fixture, that part is sound.
void expect_sound_quantization(const TestCheckpoint& model, size_t shards = 1) {
  TemporaryFolder folder;
  model.write(folder.path(), shards);
  const Result<doctor::Report> report = doctor::examine(folder.path());
  ASSERT_TRUE(report.ok()) << report.status().text();
  for (const doctor::RuleFinding& finding : report->findings) {
    const std::string_view id = finding.rule->id;
    for (const char* quantization : {"D3", "D27", "D29", "D31", "D32", "D35", "D40"}) {
      EXPECT_NE(id, quantization) << finding.finding.evidence.value << ": " << finding.finding.failure;
    }
  }
}

void expect_same(const TestCheckpoint& foreign, const Numbers& numbers, size_t shards = 1) {
  const std::vector<float> expected = logits_of(ours(numbers));
  ASSERT_FALSE(expected.empty());
  EXPECT_EQ(logits_of(foreign, shards), expected);
  expect_sound_quantization(foreign, shards);
}

// Excludes by full names, no wildcard; groups of the class Linear. As nvidia-modelopt 0.47 writes them.
TEST(ForeignLayouts, ModelOptByFullNames) {
  for (const Inputs inputs : {Inputs::a16, Inputs::a4}) {
    const Numbers n = numbers(false, inputs);
    TestCheckpoint model = n.model;
    const std::string algo = inputs == Inputs::a4 ? "NVFP4" : "W4A16_NVFP4";
    Json group = {{"weights", {{"dynamic", false}, {"num_bits", 4}, {"type", "float"}, {"group_size", 16}}},
                  {"targets", {"Linear"}}};
    if (inputs == Inputs::a4) group["input_activations"] = group["weights"];
    model.config["quantization_config"] = {{"config_groups", {{"group_0", group}}},
                                           {"ignore", n.modules.unquantized},
                                           {"quant_algo", algo},
                                           {"producer", {{"name", "modelopt"}, {"version", "0.47.0"}}},
                                           {"quant_method", "modelopt"}};
    model.files["hf_quant_config.json"] = Json{
        {"producer", {{"name", "modelopt"}, {"version", "0.47.0"}}},
        {"quantization",
         {{"quant_algo", algo},
          {"kv_cache_quant_algo", nullptr},
          {"group_size", 16},
          {"exclude_modules",
           n.modules.unquantized}}}}.dump();
    expect_same(model, n);
    expect_same(model, n, 3);
    model.config.erase("quantization_config");  // as exporters before 0.30 left it
    expect_same(model, n, 2);
  }
}

// quantized_layers alone decides, ignore names only the draft head, the cache is FP8 with its scales in the files: the
// form of nvidia/Qwen3.6-27B-NVFP4.
TEST(ForeignLayouts, MixedPrecisionInTheWrappedForm) {
  const Numbers n = numbers(true, Inputs::a16);
  TestCheckpoint model = n.model;
  wrap(model);
  for (const char* scale : {"k_proj.k_scale", "v_proj.v_scale"}) {
    model.tensors[std::string("model.language_model.layers.3.self_attn.") + scale] = scalar(1);
  }
  Json layers = Json::object(), fp8 = Json::array(), nvfp4 = Json::array();
  for (const QuantizedModule& module : n.modules.quantized) {
    const std::string name = wrapped_name(module.name);
    const bool four_bits = module.format == Format::nvfp4;
    layers[name] = four_bits ? Json{{"quant_algo", "W4A16_NVFP4"}, {"group_size", 16}} : Json{{"quant_algo", "FP8"}};
    (four_bits ? nvfp4 : fp8).push_back(name);
  }
  const Json eight = {{"dynamic", false}, {"num_bits", 8}, {"type", "float"}};
  const Json four = {{"dynamic", false}, {"num_bits", 4}, {"type", "float"}, {"group_size", 16}};
  model.config["quantization_config"] = {
      {"config_groups",
       {{"group_0", {{"input_activations", eight}, {"weights", eight}, {"targets", fp8}}},
        {"group_1", {{"weights", four}, {"targets", nvfp4}}}}},
      {"quantized_layers", layers},
      {"ignore", {"mtp*", "mtp.layers.0*"}},
      {"quant_algo", "MIXED_PRECISION"},
      {"kv_cache_scheme", eight},
      {"producer", {{"name", "modelopt"}, {"version", "0.45.0"}}},
      {"quant_method", "modelopt"}};
  model.files["hf_quant_config.json"] =
      Json{{"producer", {{"name", "modelopt"}, {"version", "0.45.0"}}},
           {"quantization",
            {{"quant_algo", "MIXED_PRECISION"}, {"kv_cache_quant_algo", "FP8"}, {"quantized_layers", layers}}}}
          .dump();
  expect_same(model, n);
  expect_same(model, n, 4);
}

// Groups by regular expressions, each with its format, the vision tower and the draft head ignored by expression.
TEST(ForeignLayouts, CompressedTensorsByExpressions) {
  const Numbers n = numbers(true, Inputs::a4);
  TestCheckpoint model = n.model;
  wrap(model);
  to_compressed_tensors(model);
  const Json eight = {{"num_bits", 8},     {"type", "float"},  {"strategy", "tensor"},
                      {"symmetric", true}, {"dynamic", false}, {"group_size", nullptr}};
  Json four = {{"num_bits", 4},     {"type", "float"},  {"strategy", "tensor_group"},
               {"symmetric", true}, {"dynamic", false}, {"group_size", 16}};
  Json inputs = four;  // without scale_dtype, as published folders have it
  inputs["dynamic"] = "local";
  model.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "mixed-precision"},
      {"quantization_status", "compressed"},
      {"version", "0.12.2"},
      {"sparsity_config", Json::object()},
      {"transform_config", Json::object()},
      {"kv_cache_scheme", nullptr},
      {"config_groups",
       {{"group_0",
         {{"format", "float-quantized"},
          {"targets", {R"(re:.*(self_attn\.(q|k|v|o)_proj|linear_attn\.(in_proj_qkv|in_proj_z|out_proj))$)"}},
          {"weights", eight},
          {"input_activations", eight}}},
        {"group_1",
         {{"format", "nvfp4-pack-quantized"},
          {"targets", {R"(re:.*mlp\.(gate|up|down)_proj$)"}},
          {"weights", four},
          {"input_activations", inputs}}}}},
      {"ignore", {"lm_head", "re:.*visual.*", "re:^mtp.*", R"(re:.*linear_attn\.in_proj_[ab]$)"}}};
  expect_same(model, n);
  expect_same(model, n, 2);

  // One group over every linear, and all dense ones by name.
  const Numbers uniform = numbers(false, Inputs::a16);
  TestCheckpoint flat = uniform.model;
  to_compressed_tensors(flat);
  flat.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "nvfp4-pack-quantized"},
      {"quantization_status", "compressed"},
      {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", four}, {"input_activations", nullptr}}}}},
      {"ignore", uniform.modules.unquantized}};
  expect_same(flat, uniform, 2);
}

// y = W (f * x): as if W diag(f) had been stored in full precision.
TEST(ForeignLayouts, FactorsOfAwqAreApplied) {
  TestCheckpoint awq = TestCheckpoint::micro_nvfp4("NVFP4"), dense = TestCheckpoint::micro_nvfp4("NVFP4");
  awq.config["quantization_config"]["quant_algo"] = "NVFP4_AWQ";
  ThreadPool pool(1);
  Context cx(pool);
  for (const auto& [name, blob] : TestCheckpoint::micro().tensors) {
    const std::string module(model::module_name(name));
    const bool inner = module.ends_with("o_proj") || module.ends_with("out_proj") || module.ends_with("down_proj");
    if (!inner) continue;
    const int64_t out = blob.shape[0], in = blob.shape[1];
    std::string factors;
    std::vector<float> values;
    for (int64_t k = 0; k < in; ++k) {
      const uint16_t half = f32_to_bf16(0.5f + static_cast<float>(k % 7) / 4);
      factors.append(reinterpret_cast<const char*>(&half), sizeof half);
      values.push_back(bf16_to_f32(half));
    }
    awq.tensors[module + ".pre_quant_scale"] = {"BF16", {in}, factors};
    const Blob &codes = awq.tensors[name], &scales = awq.tensors[module + ".weight_scale"];
    float ws2;
    std::memcpy(&ws2, awq.tensors[module + ".weight_scale_2"].bytes.data(), sizeof ws2);
    const OwnedTensor wide(DType::f32, {out, in});
    ops::nvfp4_dequantize(cx, Tensor::constant(codes.bytes.data(), DType::u8, {out, in / 2}),
                          Tensor::constant(scales.bytes.data(), DType::f8e4m3, {out, in / 16}), ws2, wide.view);
    for (int64_t i = 0; i < out * in; ++i) wide.view.f32()[i] *= values[static_cast<size_t>(i % in)];
    dense.tensors[name] = {"F32", {out, in}, std::string(static_cast<const char*>(wide.view.raw()), wide.view.bytes())};
    for (const char* suffix : {".weight_scale", ".weight_scale_2", ".input_scale"})
      dense.tensors.erase(module + suffix);
    dense.config["quantization_config"]["ignore"].push_back(module);
  }
  const std::vector<float> expected = logits_of(dense);
  EXPECT_EQ(logits_of(awq), expected);
  TestCheckpoint without = awq;
  std::erase_if(without.tensors, [](const auto& item) { return item.first.ends_with(".pre_quant_scale"); });
  EXPECT_NE(logits_of(without), expected);

  TemporaryFolder folder;
  awq.write(folder.path());
  EXPECT_TRUE(check_checkpoint(folder.path()).ok());
  const Result<doctor::Report> report = doctor::examine(folder.path());
  ASSERT_TRUE(report.ok());
  bool warned = false;
  for (const doctor::RuleFinding& finding : report->findings) warned = warned || finding.rule->id == "D28";
  EXPECT_TRUE(warned);
  for (auto& [name, blob] : awq.tensors) {
    if (name.ends_with("0.mlp.down_proj.pre_quant_scale")) blob.shape = {1, blob.shape[0]};
  }
  awq.write(folder.path());
  EXPECT_EQ(load_checkpoint(folder.path(), {}).status().code(), Code::corrupt);
}

// What nibble does not compute says what to do instead.
TEST(ForeignLayouts, OthersAreRefusedWithAWayOut) {
  const auto refusal = [](const Json& section) {
    TestCheckpoint model = TestCheckpoint::micro_nvfp4("NVFP4");
    model.config["quantization_config"] = section;
    TemporaryFolder folder;
    model.write(folder.path());
    const Status status = load_checkpoint(folder.path(), {}).status();
    EXPECT_EQ(status.code(), Code::unsupported) << status.text();
    EXPECT_NE(status.hint().find("nibble quantize"), std::string::npos) << status.text();
    const Result<doctor::Report> report = doctor::examine(folder.path());
    EXPECT_TRUE(report.ok() && report->count(doctor::Level::error) > 0);
  };
  refusal(
      {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4_SVD"}, {"ignore", {"lm_head", "*in_proj_a", "*in_proj_b"}}});
  refusal({{"quant_method", "mxfp4"}});
  refusal({{"quant_method", "modelopt"}, {"quant_algo", "MXFP4"}});
  refusal({{"quant_method", "modelopt"},
           {"quant_algo", "MIXED_PRECISION"},
           {"quantized_layers", {{"lm_head", {{"quant_algo", "W4A8_MXFP4_FP8"}}}}}});
  refusal({{"quant_method", "compressed-tensors"}, {"format", "mxfp4-pack-quantized"}});
  refusal({{"quant_method", "awq"}, {"bits", 4}});
}

}  // namespace
}  // namespace nibble::checkpoint

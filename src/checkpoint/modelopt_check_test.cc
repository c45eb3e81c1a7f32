#include "checkpoint/modelopt_check.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "checkpoint/modelopt_export.h"
#include "checkpoint/test_folder.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::Blob;
using testing::TestCheckpoint;

const std::string kUp = "model.layers.0.mlp.up_proj";

Blob scalar(float value) {
  return {"F32", {}, std::string(reinterpret_cast<const char*>(&value), sizeof value)};
}

// Both config files from what the tensors are.
void set_config(TestCheckpoint& model, Inputs inputs) {
  QuantizedModules modules;
  for (const auto& [name, blob] : model.tensors) {
    if (!name.ends_with(kWeightSuffix) || blob.shape.size() < 2) continue;
    const std::string module = name.substr(0, name.size() - kWeightSuffix.size());
    if (blob.dtype == "U8") {
      modules.quantized.push_back({module, Format::nvfp4, inputs, false});
    } else if (blob.dtype == "F8_E4M3") {
      modules.quantized.push_back({module, Format::fp8, inputs == Inputs::a16 ? inputs : Inputs::a8, false});
    } else {
      modules.unquantized.push_back(module);
    }
  }
  model.config["quantization_config"] = quantization_config(modules);
  model.files["hf_quant_config.json"] = hf_quant_config(modules).dump();
}

void edit_hf(TestCheckpoint& model, const std::function<void(Json&)>& edit) {
  Json json = *parse_json(model.files["hf_quant_config.json"], "test");
  edit(json["quantization"]);
  model.files["hf_quant_config.json"] = json.dump();
}

void set_excludes(TestCheckpoint& model, const std::vector<std::string>& names) {
  model.config["quantization_config"]["ignore"] = names;
  edit_hf(model, [&](Json& section) { section["exclude_modules"] = names; });
}

const std::vector<std::string> kExcluded = {"*conv1d", "*in_proj_a", "*in_proj_b", "*embed_tokens", "lm_head"};

// A sound export; its scales are the same everywhere, as only their agreement counts here.
TestCheckpoint sound() {
  TestCheckpoint model = TestCheckpoint::micro_nvfp4("NVFP4");
  for (auto& [name, blob] : model.tensors) {
    if (name.ends_with(kWeightScale2Suffix) || name.ends_with(kInputScaleSuffix)) blob = scalar(0.01f);
  }
  set_config(model, Inputs::a4);
  return model;
}

// The MLP's down projections in FP8 instead.
TestCheckpoint mixed() {
  TestCheckpoint model = sound();
  for (int layer = 0; layer < 4; ++layer) {
    const std::string down = fmt::format("model.layers.{}.mlp.down_proj", layer);
    Blob& codes = model.tensors[down + ".weight"];
    codes = {"F8_E4M3", {codes.shape[0], 2 * codes.shape[1]}, std::string(2 * codes.bytes.size(), '\x38')};
    model.tensors[down + ".weight_scale"] = scalar(0.01f);
    model.tensors.erase(down + ".weight_scale_2");
  }
  set_config(model, Inputs::a4);
  return model;
}

std::vector<Status> problems(const TestCheckpoint& model, const SafetensorsFolder* source = nullptr) {
  TemporaryFolder folder;
  model.write(folder.path());
  return modelopt_problems(folder.path(), source);
}

TEST(ModelOptCheck, ASoundFolderHasNoProblems) {
  Result<SafetensorsFolder> source = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/tests/golden/micro");
  ASSERT_TRUE(source.ok());
  for (const Status& problem : problems(sound(), &*source)) ADD_FAILURE() << problem.text();

  TestCheckpoint weights_only = TestCheckpoint::micro_nvfp4("W4A16_NVFP4");
  for (auto& [name, blob] : weights_only.tensors) {
    if (name.ends_with(kWeightScale2Suffix)) blob = scalar(0.01f);
  }
  set_config(weights_only, Inputs::a16);
  for (const Status& problem : problems(weights_only)) ADD_FAILURE() << problem.text();
  for (const Status& problem : problems(mixed())) ADD_FAILURE() << problem.text();
}

struct Fault {
  const char* expected;  // the message
  std::function<void(TestCheckpoint&)> make;
};

TEST(ModelOptCheck, EachFaultIsNamed) {
  const Fault faults[] = {
      {"model.layers.0.mlp.up_proj.weight_scale: missing",
       [](TestCheckpoint& m) { m.tensors.erase(kUp + ".weight_scale"); }},
      {"model.layers.0.mlp.up_proj.weight_scale_2: missing",
       [](TestCheckpoint& m) { m.tensors.erase(kUp + ".weight_scale_2"); }},
      {"model.layers.0.mlp.up_proj.input_scale: missing",
       [](TestCheckpoint& m) { m.tensors.erase(kUp + ".input_scale"); }},
      {"model.layers.0.mlp.up_proj.weight_scale: expected [96,4] F8_E4M3, got [4,96] F8_E4M3",
       [](TestCheckpoint& m) {
         m.tensors[kUp + ".weight_scale"].shape = {4, 96};
       }},
      {"model.layers.0.mlp.up_proj.weight: expected two-dimensional U8 codes, got [96,32] I8",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight"].dtype = "I8"; }},
      {"model.layers.0.mlp.up_proj.weight_scale_2: expected a scalar F32, got [1] F32",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight_scale_2"].shape = {1}; }},
      {"model.layers.0.mlp.up_proj.weight_scale_2: expected a finite number above 0, got -1",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight_scale_2"] = scalar(-1); }},
      {"model.layers.0.mlp.up_proj.input_scale: expected a finite number above 0, got inf",
       [](TestCheckpoint& m) { m.tensors[kUp + ".input_scale"] = scalar(std::numeric_limits<float>::infinity()); }},
      {"model.layers.0.mlp.up_proj.weight_scale: expected finite scales above 0, got the byte 0x7F",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight_scale"].bytes[17] = 0x7F; }},
      {"model.layers.0.mlp.up_proj.weight_scale: expected finite scales above 0, got the byte 0x00",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight_scale"].bytes[0] = 0; }},
      {"model.layers.0.mlp.up_proj: expected the tensor and input scale of model.layers.0.mlp.gate_proj, with which "
       "servers fuse it",
       [](TestCheckpoint& m) { m.tensors[kUp + ".weight_scale_2"] = scalar(.02f); }},
      {"model.layers.0.mlp.up_proj: quantized, but an entry of exclude_modules matches it",
       [](TestCheckpoint& m) {
         std::vector<std::string> names = kExcluded;
         names.push_back(kUp);
         set_excludes(m, names);
       }},
      {"model.embed_tokens: unquantized, but no entry of exclude_modules matches it",
       [](TestCheckpoint& m) {
         set_excludes(m, {"*conv1d", "*in_proj_a", "*in_proj_b", "lm_head"});
       }},
      {"model.layers.0.mlp.gate_proj.input_scale: expected none, as activations are not quantized",
       [](TestCheckpoint& m) { set_config(m, Inputs::a16); }},
      {"hf_quant_config.json: expected the quant_algo, layers, excludes and cache of config.json, got others",
       [](TestCheckpoint& m) { m.config["quantization_config"]["ignore"].push_back("mtp*"); }},
      {"hf_quant_config.json: expected the quant_algo, layers, excludes and cache of config.json, got others",
       [](TestCheckpoint& m) { m.config["quantization_config"]["quant_algo"] = "W4A16_NVFP4"; }},
      {"hf_quant_config.json: expected the quant_algo, layers, excludes and cache of config.json, got others",
       [](TestCheckpoint& m) { m.config.erase("quantization_config"); }},
      {"lm_head.weight: expected in an untied model, got none",
       [](TestCheckpoint& m) { m.tensors.erase("lm_head.weight"); }},
      {"model.norm.weight: expected every tensor of the source, got none of that name",
       [](TestCheckpoint& m) { m.tensors.erase("model.norm.weight"); }},
      {"model.norm.weight: expected [64] F32 as in the source, got [32,2] F32",
       [](TestCheckpoint& m) {
         m.tensors["model.norm.weight"].shape = {32, 2};
       }},
  };
  Result<SafetensorsFolder> source = SafetensorsFolder::open(NIBBLE_SOURCE_DIR "/tests/golden/micro");
  ASSERT_TRUE(source.ok());
  for (const Fault& fault : faults) {
    TestCheckpoint model = sound();
    fault.make(model);
    bool named = false;
    std::string all;
    for (const Status& problem : problems(model, &*source)) {
      EXPECT_EQ(problem.code(), Code::corrupt);
      named = named || problem.message() == fault.expected;
      all.append("\n").append(problem.text());
    }
    EXPECT_TRUE(named) << "expected " << fault.expected << ", got:" << all;
  }
}

TEST(ModelOptCheck, AMixedGroupIsNamed) {
  TestCheckpoint model = sound();
  const TestCheckpoint source = TestCheckpoint::micro();
  for (std::string_view suffix : {kWeightScaleSuffix, kWeightScale2Suffix, kInputScaleSuffix}) {
    model.tensors.erase(kUp + std::string(suffix));
  }
  model.tensors[kUp + ".weight"] = source.tensors.at(kUp + ".weight");
  std::vector<std::string> names = kExcluded;
  names.push_back(kUp);
  set_excludes(model, names);
  const std::vector<Status> found = problems(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(
      found[0].message(),
      "model.layers.0.mlp.up_proj: expected the format of model.layers.0.mlp.gate_proj, with which servers fuse it");
}

TEST(ModelOptCheck, AFolderThatCannotBeReadIsOneProblem) {
  TestCheckpoint model = sound();
  model.files.erase("hf_quant_config.json");
  const std::vector<Status> found = problems(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].code(), Code::not_found);
}

TEST(ModelOptCheck, EachFaultOfAMixedFolderIsNamed) {
  const std::string down = "model.layers.0.mlp.down_proj";
  const auto edit_layers = [](TestCheckpoint& m, const std::function<void(Json&)>& edit) {
    edit(m.config["quantization_config"]["quantized_layers"]);
    edit_hf(m, [&](Json& section) { edit(section["quantized_layers"]); });
  };
  const Fault faults[] = {
      {"model.layers.0.mlp.down_proj.weight_scale: missing",
       [&](TestCheckpoint& m) { m.tensors.erase(down + ".weight_scale"); }},
      {"model.layers.0.mlp.down_proj.weight_scale: expected a scalar F32, got [2] F32",
       [&](TestCheckpoint& m) {
         m.tensors[down + ".weight_scale"] = {"F32", {2}, std::string(8, '\1')};
       }},
      {"model.layers.0.mlp.down_proj.weight_scale: expected a finite number above 0, got 0",
       [&](TestCheckpoint& m) { m.tensors[down + ".weight_scale"] = scalar(0); }},
      {"model.layers.0.mlp.down_proj.input_scale: missing",
       [&](TestCheckpoint& m) { m.tensors.erase(down + ".input_scale"); }},
      {"model.layers.0.mlp.down_proj.weight: expected numbers, got NaN",
       [&](TestCheckpoint& m) { m.tensors[down + ".weight"].bytes[5] = '\xFF'; }},
      {"model.layers.0.mlp.down_proj: quantized, but quantized_layers does not name it",
       [&](TestCheckpoint& m) { edit_layers(m, [&](Json& layers) { layers.erase(down); }); }},
      {"model.layers.0.mlp.down_proj: expected NVFP4, as the config says, got [64,96] F8_E4M3",
       [&](TestCheckpoint& m) { edit_layers(m, [&](Json& layers) { layers[down]["quant_algo"] = "NVFP4"; }); }},
      {"model.layers.0.mlp.down_proj: expected low-rank factors exactly with NVFP4_SVD, got FP8",
       [&](TestCheckpoint& m) {
         m.tensors[down + ".svdquant_lora_a"] = {"BF16", {2, 96}, std::string(384, '\0')};
       }},
      {"model.layers.0.linear_attn.in_proj_a: unquantized, but quantized_layers says FP8",
       [&](TestCheckpoint& m) {
         edit_layers(m, [&](Json& layers) {
           layers["model.layers.0.linear_attn.in_proj_a"] = {{"quant_algo", "FP8"}};
         });
       }},
      {"model.layers.9.mlp.up_proj: expected a FP8 weight, got none",
       [&](TestCheckpoint& m) {
         edit_layers(m, [&](Json& layers) { layers["model.layers.9.mlp.up_proj"] = {{"quant_algo", "FP8"}}; });
       }},
      {"hf_quant_config.json: expected the quant_algo, layers, excludes and cache of config.json, got others",
       [&](TestCheckpoint& m) { edit_hf(m, [&](Json& section) { section["quantized_layers"].erase(down); }); }},
      {"hf_quant_config.json: expected the quant_algo, layers, excludes and cache of config.json, got others",
       [&](TestCheckpoint& m) { edit_hf(m, [&](Json& section) { section["kv_cache_quant_algo"] = "FP8"; }); }},
      {"quantized_layers: expected an object, got array (config.json)",
       [&](TestCheckpoint& m) { m.config["quantization_config"]["quantized_layers"] = Json::array(); }},
  };
  for (const Fault& fault : faults) {
    TestCheckpoint model = mixed();
    fault.make(model);
    bool named = false;
    std::string all;
    for (const Status& problem : problems(model)) {
      named = named || problem.message() == fault.expected;
      all += problem.text() + "\n";
    }
    EXPECT_TRUE(named) << fault.expected << "\ngot\n" << all;
  }
}

TEST(ModelOptCheck, AQuantizedHeadIsNotTheEmbedding) {
  TestCheckpoint model = sound();
  model.config["tie_word_embeddings"] = true;
  const Blob& up = model.tensors[kUp + ".weight"];
  const int64_t rows = up.shape[0], columns = 2 * up.shape[1];
  model.tensors["lm_head.weight"] = {"U8", {rows, columns / 2}, up.bytes};
  model.tensors["lm_head.weight_scale"] = model.tensors[kUp + ".weight_scale"];
  model.tensors["lm_head.weight_scale_2"] = scalar(0.01f);
  model.tensors["lm_head.input_scale"] = scalar(0.01f);
  set_config(model, Inputs::a4);
  const std::vector<Status> found = problems(model);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].message(), "lm_head: quantized, but tie_word_embeddings says that it is the embedding");
}

}  // namespace
}  // namespace nibble::checkpoint

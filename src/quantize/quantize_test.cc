#include "quantize/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "base/rng.h"
#include "checkpoint/load.h"
#include "checkpoint/test_folder.h"
#include "model/names.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using checkpoint::testing::Blob;
using checkpoint::testing::read_json_file;
using checkpoint::testing::TestCheckpoint;
using test::TemporaryFolder;

const std::string kUp = "model.layers.0.mlp.up_proj";

void set_element(Blob& blob, size_t index, float value) {
  ASSERT_EQ(blob.dtype, "F32");
  std::memcpy(blob.bytes.data() + index * sizeof value, &value, sizeof value);
}

Blob random_bf16(std::vector<int64_t> shape, uint64_t seed) {
  Rng rng(seed);
  Blob blob{"BF16", std::move(shape), ""};
  int64_t elements = 1;
  for (int64_t dim : blob.shape) elements *= dim;
  for (int64_t i = 0; i < elements; ++i) {
    const uint16_t word = f32_to_bf16(rng.normal());
    blob.bytes.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return blob;
}

class QuantizeFolder : public testing::Test {
 protected:
  ~QuantizeFolder() override { inject_file_faults({}); }

  Result<QuantizeReport> quantize(const TestCheckpoint& model, const QuantizeOptions& options = {}) {
    model.write(source());
    return quantize_folder(source(), output(), options, pool_);
  }

  Path source() const { return folder_.path() / "source"; }
  Path output() const { return folder_.path() / "output"; }

  // The test's folder holds the source and nothing else, hidden or not.
  void expect_nothing_left(const std::string& where = "") const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().filename(), "source") << where;
    }
  }

  ThreadPool pool_{2};
  TemporaryFolder folder_;
};

TEST_F(QuantizeFolder, KeepsEverythingThatIsNotQuantized) {
  TestCheckpoint model = TestCheckpoint::micro();
  model.files["tokenizer.json"] = std::string("{\"a\":\0 1}", 9);
  model.files["chat_template.jinja"] = "{{ x }}";
  model.files["README.md"] = "";
  const Result<QuantizeReport> report = quantize(model);
  ASSERT_TRUE(report.ok()) << report.status().text();
  for (const auto& [name, text] : model.files) EXPECT_EQ(*read_file(output() / name), text) << name;

  const Result<SafetensorsFolder> written = SafetensorsFolder::open(output());
  ASSERT_TRUE(written.ok()) << written.status().text();
  size_t kept = 0;
  for (const auto& [name, blob] : model.tensors) {
    const SafetensorsFolder::Entry* entry = written->find(name);
    ASSERT_NE(entry, nullptr) << name;
    if (entry->info->dtype == "U8") continue;
    ++kept;
    const std::span<const std::byte> bytes = entry->file->bytes(*entry->info);
    EXPECT_EQ(entry->info->shape, blob.shape) << name;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), blob.bytes) << name;
  }
  EXPECT_EQ(kept + report->quantized.size(), model.tensors.size());
  EXPECT_EQ(report->quantized.size(), 25u);
  EXPECT_EQ(written->files()[0].metadata().at("format"), "pt");
  EXPECT_EQ(written->files()[0].metadata().at("quantized_by").substr(0, 7), "nibble ");
  uint64_t bytes = 0;
  for (const SafetensorsFolder::Entry& entry : written->tensors()) bytes += entry.info->bytes;
  EXPECT_EQ(bytes, report->bytes);
}

TEST_F(QuantizeFolder, LeavesOutWeightsInOtherFormsAndTrainingState) {
  TestCheckpoint model = TestCheckpoint::micro();
  for (const char* name : {"pytorch_model.bin", "optimizer.pt", "model.gguf", ".hidden", "hf_quant_config.json",
                           "pytorch_model.bin.index.json", "vocab.json"}) {
    model.files[name] = "{}";
  }
  model.write(source());
  std::filesystem::create_directories(source() / "additional_chat_templates");
  std::filesystem::create_directories(source() / "checkpoint-500");
  ASSERT_TRUE(write_file(source() / "additional_chat_templates" / "tool.jinja", "t").ok());
  ASSERT_TRUE(write_file(source() / "checkpoint-500" / "tokenizer.json", "t").ok());
  ASSERT_TRUE(quantize_folder(source(), output(), {}, pool_).ok());
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(output())) {
    if (entry.is_regular_file()) names.insert(std::filesystem::relative(entry.path(), output()).string());
  }
  EXPECT_EQ(names, (std::set<std::string>{"additional_chat_templates/tool.jinja", "config.json", "hf_quant_config.json",
                                          "model.safetensors", "vocab.json"}));
}

TEST_F(QuantizeFolder, TheLoaderReadsWhatWasWritten) {
  for (bool calibrated : {false, true}) {
    std::filesystem::remove_all(output());
    const TestCheckpoint model = TestCheckpoint::micro();
    QuantizeOptions options;
    if (calibrated) options.recipe = uniform_recipe(Scales::max, Inputs::a4);
    for (const auto& [name, blob] : model.tensors) {
      if (calibrated) options.input_amax[std::string(model::module_name(name))] = 4;
    }
    const Result<QuantizeReport> report = quantize(model, options);
    ASSERT_TRUE(report.ok()) << report.status().text();
    const Result<checkpoint::LoadedModel> loaded = checkpoint::load_checkpoint(output());
    ASSERT_TRUE(loaded.ok()) << loaded.status().text();
    EXPECT_EQ(loaded->quantization.algo, calibrated ? "NVFP4" : "W4A16_NVFP4");
    EXPECT_EQ(loaded->format.format, "nvfp4");
    EXPECT_EQ(loaded->format.bytes_per_token, report->bytes_per_token);
  }
}

TEST_F(QuantizeFolder, FusedGroupsShareTheirScales) {
  const TestCheckpoint model = TestCheckpoint::micro();
  QuantizeOptions options;
  options.recipe = uniform_recipe(Scales::max, Inputs::a4);
  float amax = 1;
  for (const auto& [name, blob] : model.tensors) options.input_amax[std::string(model::module_name(name))] = amax++;
  const Result<QuantizeReport> report = quantize(model, options);  // the consistency check compares the scales
  ASSERT_TRUE(report.ok()) << report.status().text();
  options.tie_groups = false;
  std::filesystem::remove_all(output());
  const Result<QuantizeReport> untied = quantize(model, options);
  ASSERT_TRUE(untied.ok()) << untied.status().text();
  int smaller = 0;
  for (size_t i = 0; i < report->quantized.size(); ++i) {
    EXPECT_LE(untied->quantized[i].tensor_scale, report->quantized[i].tensor_scale);
    smaller += untied->quantized[i].tensor_scale < report->quantized[i].tensor_scale;
  }
  // Per delta layer one of qkv and z, one of gate and up; in the attention layer two of q, k, v and one of gate, up.
  EXPECT_EQ(smaller, 3 * 2 + 3);
}

TEST_F(QuantizeFolder, WrappedModelKeepsItsPrefixVisionTowerAndDraftHead) {
  TestCheckpoint model = TestCheckpoint::micro("micro_tied");
  TestCheckpoint wrapped;
  wrapped.config = {{"architectures", {"Qwen3_5ForConditionalGeneration"}},
                    {"model_type", "qwen3_5"},
                    {"tie_word_embeddings", true},
                    {"text_config", model.config},
                    {"vision_config", {{"depth", 1}}}};
  for (auto& [name, blob] : model.tensors) {
    ASSERT_TRUE(name.starts_with("model."));
    wrapped.tensors["model.language_model." + name.substr(6)] = blob;
  }
  wrapped.tensors["model.visual.patch_embed.proj.weight"] = random_bf16({8, 3, 2, 4, 4}, 1);
  wrapped.tensors["model.visual.blocks.0.attn.qkv.weight"] = random_bf16({48, 16}, 2);
  wrapped.tensors["mtp.layers.0.self_attn.q_proj.weight"] = random_bf16({32, 64}, 3);
  const Result<QuantizeReport> report = quantize(wrapped);
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_EQ(report->quantized.size(), 25u);
  for (const QuantizedTensor& tensor : report->quantized) {
    EXPECT_TRUE(tensor.module.starts_with("model.language_model.layers.")) << tensor.module;
  }
  const Json ignore = read_json_file(output() / "config.json")["quantization_config"]["ignore"];
  for (const char* name : {"lm_head", "mtp*", "model.visual*", "model.language_model.embed_tokens"}) {
    EXPECT_NE(std::find(ignore.begin(), ignore.end(), name), ignore.end()) << name;
  }
  const Result<checkpoint::LoadedModel> loaded = checkpoint::load_checkpoint(output());
  EXPECT_TRUE(loaded.ok()) << loaded.status().text();
}

TEST_F(QuantizeFolder, LargeModelsAreSharded) {
  const TestCheckpoint model = TestCheckpoint::micro();
  QuantizeOptions options;
  options.shard_bytes = 50000;
  const Result<QuantizeReport> report = quantize(model, options);
  ASSERT_TRUE(report.ok()) << report.status().text();
  const Json index = read_json_file(output() / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], report->bytes);
  EXPECT_GT(SafetensorsFolder::open(output())->files().size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(output() / "model.safetensors"));
  EXPECT_TRUE(checkpoint::load_checkpoint(output()).ok());
}

TEST_F(QuantizeFolder, ProgressReachesItsTotal) {
  uint64_t last = 0, total = 0;
  QuantizeOptions options;
  options.progress = [&](const ProgressUpdate& update) {
    EXPECT_GT(update.done, last);
    EXPECT_FALSE(update.what.empty());
    last = update.done;
    total = update.total;
  };
  ASSERT_TRUE(quantize(TestCheckpoint::micro(), options).ok());
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 0u);
}

TEST_F(QuantizeFolder, CancellingAnywhereLeavesNothing) {
  const TestCheckpoint model = TestCheckpoint::micro();
  uint64_t updates = 0;
  QuantizeOptions options;
  options.progress = [&](const ProgressUpdate&) { ++updates; };
  ASSERT_TRUE(quantize(model, options).ok());
  std::filesystem::remove_all(output());
  for (uint64_t stop = 1; stop <= updates; stop += 7) {
    options.cancel = CancelToken();
    uint64_t seen = 0;
    options.progress = [&](const ProgressUpdate&) {
      if (++seen == stop) options.cancel.cancel();
    };
    const Result<QuantizeReport> report = quantize(model, options);
    ASSERT_FALSE(report.ok());
    EXPECT_EQ(report.status().code(), Code::cancelled);
    expect_nothing_left(std::to_string(stop));
  }
}

TEST_F(QuantizeFolder, AFaultOfAnyOperationLeavesNothing) {
  const TestCheckpoint model = TestCheckpoint::micro();
  model.write(source());
  int operations = 0;
  inject_file_faults([&](std::string_view, const Path&) { return ++operations, Status(); });
  ASSERT_TRUE(quantize_folder(source(), output(), {}, pool_).ok());
  std::filesystem::remove_all(output());
  for (int failing = 1; failing <= operations; ++failing) {
    int seen = 0;
    inject_file_faults([&](std::string_view operation, const Path& path) {
      return ++seen == failing ? io("{}: injected ({})", operation, path.string()) : Status();
    });
    const Result<QuantizeReport> report = quantize_folder(source(), output(), {}, pool_);
    ASSERT_FALSE(report.ok()) << failing;
    EXPECT_EQ(report.status().code(), Code::io) << report.status().text();
    expect_nothing_left(std::to_string(failing));
  }
}

struct Refusal {
  const char* message;
  std::function<void(TestCheckpoint&, QuantizeOptions&)> make;
};

TEST_F(QuantizeFolder, RefusalsNameTheirCauseAndLeaveNothing) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Refusal refusals[] = {
      {"corrupt: weight not finite: model.layers.0.mlp.up_proj.weight[2,5]: expected a number, got NaN or infinity "
       "(model.safetensors)",
       [&](auto& model, auto&) { set_element(model.tensors[kUp + ".weight"], 2 * 64 + 5, kNan); }},
      {"corrupt: weight not finite: model.norm.weight[3]: expected a number, got -inf (model.safetensors)",
       [&](auto& model, auto&) { set_element(model.tensors["model.norm.weight"], 3, -INFINITY); }},
      {"corrupt: weight not finite: model.layers.0.linear_attn.conv1d.weight[6]: expected a number, got nan "
       "(model.safetensors)",
       [&](auto& model, auto&) { set_element(model.tensors["model.layers.0.linear_attn.conv1d.weight"], 6, kNan); }},
      {"corrupt: model.layers.0.mlp.up_proj.weight: row 7: expected values that survive 4 bits, got a row that becomes "
       "zero (1 such rows)",
       [&](auto& model, auto&) {
         for (size_t i = 0; i < 64; ++i) set_element(model.tensors[kUp + ".weight"], 7 * 64 + i, 1e-12f);
       }},
      {"invalid argument: exclude: expected a pattern that matches a tensor, got \"mlp.gate\", which matches none",
       [](auto&, auto& options) { options.exclude = {"mlp.gate"}; }},
      {"invalid argument: calibration: model.layers.0.linear_attn.in_proj_qkv: expected an input amax above 0, got 0",
       [](auto&, auto& options) {
         options.recipe = uniform_recipe(Scales::max, Inputs::a4);
         options.input_amax = {{"lm_head", 1.f}};
       }},
      {"unsupported: plan: expected a layout with low-rank branches, got compressed-tensors, which has none",
       [](auto&, auto& options) {
         options.recipe = *find_recipe("svdquant");
         options.layout = Layout::compressed_tensors;
       }},
      {"invalid argument: model.layers.0.linear_attn.in_proj_qkv: expected a low-rank branch from the calibration, got "
       "none",
       [](auto&, auto& options) { options.recipe = *find_recipe("svdquant"); }},
      {"invalid argument: quantize: expected unquantized weights, got a checkpoint with quantization_config",
       [](auto& model, auto&) {
         model.config["quantization_config"] = {{"quant_method", "fp8"}};
       }},
      {"unsupported: model_type", [](auto& model, auto&) { model.config["model_type"] = "llama"; }},
  };
  for (const Refusal& refusal : refusals) {
    TestCheckpoint model = TestCheckpoint::micro();
    QuantizeOptions options;
    refusal.make(model, options);
    const Result<QuantizeReport> report = quantize(model, options);
    ASSERT_FALSE(report.ok()) << refusal.message;
    EXPECT_EQ(report.status().text().substr(0, std::strlen(refusal.message)), refusal.message);
    expect_nothing_left(refusal.message);
  }
}

TEST_F(QuantizeFolder, RefusesAnOutputWithFiles) {
  TestCheckpoint::micro().write(source());
  const Result<QuantizeReport> report = quantize_folder(source(), source(), {}, pool_);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), Code::invalid_argument);
  EXPECT_TRUE(std::filesystem::exists(source() / "model.safetensors"));
}

TEST_F(QuantizeFolder, ADeadLayerStaysZero) {
  TestCheckpoint model = TestCheckpoint::micro();
  std::string& bytes = model.tensors["model.layers.1.mlp.down_proj.weight"].bytes;
  std::fill(bytes.begin(), bytes.end(), '\0');
  const Result<QuantizeReport> report = quantize(model);
  ASSERT_TRUE(report.ok()) << report.status().text();
  EXPECT_TRUE(checkpoint::load_checkpoint(output()).ok());
}

}  // namespace
}  // namespace nibble::quantize

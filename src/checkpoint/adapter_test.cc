#include "checkpoint/adapter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/adapter_writer.h"
#include "checkpoint/test_adapter.h"
#include "model/names.h"
#include "tensor/numeric.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::Blob;
using testing::TestAdapter;
using testing::TestCheckpoint;

const std::string kUp = "model.layers.0.mlp.up_proj";
const std::string kQkv = "model.layers.0.linear_attn.in_proj_qkv";
const std::string kQ = "model.layers.3.self_attn.q_proj";

double number(const Blob& blob, int64_t i) {
  const auto word = [&](auto value) {
    std::memcpy(&value, blob.bytes.data() + static_cast<size_t>(i) * sizeof value, sizeof value);
    return value;
  };
  if (blob.dtype == "BF16") return bf16_to_f32(word(uint16_t{}));
  if (blob.dtype == "F16") return f16_to_f32(word(uint16_t{}));
  return word(float{});
}

// The same weights in another type.
Blob converted(const Blob& blob, const std::string& dtype) {
  Blob out{dtype, blob.shape, ""};
  for (int64_t i = 0; i < static_cast<int64_t>(blob.bytes.size() / 4); ++i) {
    const auto x = static_cast<float>(number(blob, i));
    const uint16_t word = dtype == "BF16" ? f32_to_bf16(x) : f32_to_f16(x);
    out.bytes.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return out;
}

class AdapterFolder : public ::testing::Test {
 protected:
  Path base() const { return folder_.path() / "base"; }
  Path lora() const { return folder_.path() / "lora"; }

  Result<LoadedModel> merge() {
    NIBBLE_TRY(adapter, Adapter::open(lora()));
    NIBBLE_TRY(model, load_checkpoint(base()));
    NIBBLE_RETURN_IF_ERROR(merge_adapter(pool_, model, adapter));
    return std::move(model);
  }

  // What a module of a merged model holds, against W + scale * B A in double.
  void expect_merged(LoadedModel& model, const std::string& module, const Blob& w, const Blob& a, const Blob& b,
                     double scale) {
    const ops::Linear* found = nullptr;
    model.weights.for_each_linear([&](std::string_view name, ops::Linear& linear) {
      if (model::canonical_module(name) == module) found = &linear;
    });
    ASSERT_NE(found, nullptr) << module;
    const int64_t out = w.shape[0], in = w.shape[1], r = a.shape[0];
    ASSERT_EQ(found->weight.shape(), (Shape{out, in}));
    const bool bf16 = found->weight.dtype() == DType::bf16;
    double worst = 0, moved = 0;
    for (int64_t n = 0; n < out; ++n) {
      for (int64_t k = 0; k < in; ++k) {
        double sum = 0;
        for (int64_t j = 0; j < r; ++j) sum += number(b, n * r + j) * number(a, j * in + k);
        const double expected = number(w, n * in + k) + scale * sum;
        const float got = bf16 ? bf16_to_f32(found->weight.bf16()[n * in + k]) : found->weight.f32()[n * in + k];
        // Half a step of the type the result is rounded to, and a few of f32 for the sums before.
        const double step = std::abs(expected) * (bf16 ? 0x1p-8 : 0x1p-24) + 4e-7 * (std::abs(scale * sum) + 0.1);
        worst = std::max(worst, std::abs(got - expected) / step);
        moved = std::max(moved, std::abs(got - number(w, n * in + k)));
      }
    }
    EXPECT_LE(worst, 1) << module;
    EXPECT_GT(moved, 1e-3) << module;
  }

  ThreadPool pool_{2};
  TemporaryFolder folder_;
};

TEST_F(AdapterFolder, MergesEveryTypeOfWeightAndAdapter) {
  for (const std::string weights : {"F32", "BF16"}) {
    for (const std::string factors : {"F32", "BF16", "F16"}) {
      TestCheckpoint model = TestCheckpoint::micro();
      if (weights == "BF16") {
        for (const std::string& module : {kUp, kQ}) {
          model.tensors[module + ".weight"] = converted(model.tensors[module + ".weight"], "BF16");
        }
      }
      TestAdapter adapter = TestAdapter::of(model, {kUp, kQ});
      for (auto& [name, blob] : adapter.tensors) blob = TestAdapter::random(blob.shape, name.size(), factors);
      model.write(base());
      adapter.write(lora());
      Result<LoadedModel> merged = merge();
      ASSERT_TRUE(merged.ok()) << merged.status().text();
      for (const std::string& module : {kUp, kQ}) {
        expect_merged(*merged, module, model.tensors[module + ".weight"],
                      adapter.tensors[TestAdapter::name(module, 'A')], adapter.tensors[TestAdapter::name(module, 'B')],
                      2);
      }
      EXPECT_EQ(merged->adapter, "lora");
      EXPECT_NE(merged->fingerprint, load_checkpoint(base())->fingerprint);
    }
  }
}

TEST_F(AdapterFolder, WhatIsNotAdaptedStays) {
  const TestCheckpoint model = TestCheckpoint::micro();
  model.write(base());
  TestAdapter::of(model, {kUp}).write(lora());
  const Result<LoadedModel> merged = merge();
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  int compared = 0;
  merged->weights.for_each_linear([&](std::string_view module, const ops::Linear& linear) {
    if (module == kUp) return;
    ++compared;
    const std::string& bytes = model.tensors.at(std::string(module) + ".weight").bytes;
    EXPECT_EQ(bytes, std::string(static_cast<const char*>(linear.weight.raw()), linear.weight.bytes())) << module;
  });
  EXPECT_GT(compared, 20);
}

TEST_F(AdapterFolder, RanksAlphasAndStabilizedScales) {
  TestCheckpoint model = TestCheckpoint::micro();
  TestAdapter adapter = TestAdapter::of(model, {kUp, kQ});
  adapter.tensors[TestAdapter::name(kQ, 'A')] = TestAdapter::random({9, model.tensors[kQ + ".weight"].shape[1]}, 1);
  adapter.tensors[TestAdapter::name(kQ, 'B')] = TestAdapter::random({model.tensors[kQ + ".weight"].shape[0], 9}, 2);
  adapter.config["rank_pattern"] = {{"k_proj", 3}, {R"(layers\.3\.self_attn\.q_proj)", 9}};
  adapter.config["alpha_pattern"] = {{"^" + kUp, 6}};
  adapter.config["use_rslora"] = true;
  model.write(base());
  adapter.write(lora());
  Result<LoadedModel> merged = merge();
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  const double scales[] = {6.0 / 2, 8.0 / 3};  // alpha / sqrt(r)
  for (const std::string& module : {kUp, kQ}) {
    expect_merged(*merged, module, model.tensors[module + ".weight"], adapter.tensors[TestAdapter::name(module, 'A')],
                  adapter.tensors[TestAdapter::name(module, 'B')], scales[module == kQ]);
  }
}

// The base and the adapter each under either prefix, and with PEFT's name of the adapter left in.
TEST_F(AdapterFolder, EitherPrefixAndTheDefaultName) {
  const TestCheckpoint plain = TestCheckpoint::micro("micro_tied");
  TestCheckpoint wrapped = plain;
  wrapped.tensors.clear();
  for (const auto& [name, blob] : plain.tensors) wrapped.tensors["model.language_model." + name.substr(6)] = blob;
  for (const bool wrapped_base : {false, true}) {
    for (const std::string prefix : {"model.", "model.language_model."}) {
      for (const std::string given : {"", ".default"}) {
        TestAdapter adapter = TestAdapter::of(plain, {kUp});
        const Blob a = adapter.tensors[TestAdapter::name(kUp, 'A')], b = adapter.tensors[TestAdapter::name(kUp, 'B')];
        adapter.tensors.clear();
        const std::string path = "base_model.model." + prefix + kUp.substr(6);
        adapter.tensors[path + ".lora_A" + given + ".weight"] = a;
        adapter.tensors[path + ".lora_B" + given + ".weight"] = b;
        adapter.config["target_modules"] = {"layers.0.mlp.up_proj"};
        (wrapped_base ? wrapped : plain).write(base());
        adapter.write(lora());
        Result<LoadedModel> merged = merge();
        ASSERT_TRUE(merged.ok()) << merged.status().text() << path;
        expect_merged(*merged, kUp, plain.tensors.at(kUp + ".weight"), a, b, 2);
      }
    }
  }
}

// target_modules as Unsloth writes it, beside the fields of a current PEFT.
TEST_F(AdapterFolder, TargetsAsAPattern) {
  const TestCheckpoint model = TestCheckpoint::micro();
  std::vector<std::string> modules;
  for (const auto& [name, blob] : model.tensors) {
    if (name.ends_with("q_proj.weight") || name.ends_with("in_proj_qkv.weight")) {
      modules.emplace_back(model::module_name(name));
    }
  }
  ASSERT_EQ(modules.size(), 4u);
  TestAdapter adapter = TestAdapter::of(model, modules);
  adapter.config.update(Json::parse(R"json({
    "alora_invocation_tokens": null, "arrow_config": null, "auto_mapping": {"unsloth_fixed": true},
    "base_model_name_or_path": "unsloth/Qwen3.5-0.8B", "corda_config": null, "ensure_weight_tying": false,
    "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
    "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
    "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core",
    "modules_to_save": null, "peft_version": "0.18.0", "qalora_group_size": 16, "rank_pattern": {}, "revision": null,
    "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_dora": false,
    "use_qalora": false, "use_rslora": false})json"));
  adapter.config["target_modules"] =
      R"re((?:.*?(?:language|text).*?(?:self_attn|attn|mlp).*?(?:in_proj_qkv|q_proj).*?)|)re"
      R"re((?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|linear_attn|mlp)\.(?:(?:in_proj_qkv|q_proj))))re";
  model.write(base());
  adapter.write(lora());
  const Result<LoadedModel> merged = merge();
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  adapter.tensors.erase(TestAdapter::name(kQkv, 'A'));
  adapter.tensors.erase(TestAdapter::name(kQkv, 'B'));
  adapter.write(lora());
  EXPECT_NE(merge().status().text().find(kQkv), std::string::npos) << "the pattern names it";
}

TEST_F(AdapterFolder, AllLinearIsEverythingButTheHead) {
  const TestCheckpoint model = TestCheckpoint::micro();
  std::vector<std::string> modules;
  model.write(base());
  load_checkpoint(base())->weights.for_each_linear([&](std::string_view module, ops::Linear&) {
    if (module != "lm_head") modules.emplace_back(module);
  });
  TestAdapter adapter = TestAdapter::of(model, modules);
  adapter.config["target_modules"] = "all-linear";
  adapter.write(lora());
  const Result<LoadedModel> merged = merge();
  EXPECT_TRUE(merged.ok()) << merged.status().text();
}

TEST_F(AdapterFolder, WrittenFoldersReadBack) {
  TestCheckpoint model = TestCheckpoint::micro();
  model.write(base());
  const Blob a = TestAdapter::random({3, model.tensors[kUp + ".weight"].shape[1]}, 1);
  const Blob b = TestAdapter::random({model.tensors[kUp + ".weight"].shape[0], 3}, 2);
  const auto view = [](const Blob& blob) {
    return Tensor::constant(blob.bytes.data(), DType::f32, {blob.shape[0], blob.shape[1]});
  };
  const AdapterTensors tensors[] = {{kUp, view(a), view(b)}};
  const Status written = write_adapter(lora(), {3, 4.5, "org/base", {kUp}}, tensors);
  ASSERT_TRUE(written.ok()) << written.text();
  const Result<Adapter> adapter = Adapter::open(lora());
  ASSERT_TRUE(adapter.ok()) << adapter.status().text();
  EXPECT_EQ(adapter->config().base_model(), "org/base");
  ASSERT_EQ(adapter->modules().size(), 1u);
  EXPECT_EQ(adapter->find(kUp)->rank(), 3);
  EXPECT_EQ(adapter->find(kUp)->scale, 1.5f);
  Result<LoadedModel> merged = merge();
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  expect_merged(*merged, kUp, model.tensors[kUp + ".weight"], a, b, 1.5);

  const Json config = testing::read_json_file(lora() / kAdapterConfigFile);
  for (const char* field : {"peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "target_modules",
                            "base_model_name_or_path", "inference_mode"}) {
    EXPECT_TRUE(config.contains(field)) << field;
  }
  EXPECT_FALSE(write_adapter(lora(), {3, 4.5, "", {kUp}}, tensors).ok()) << "the folder is not empty";
}

// Streamed tensors are those of the model in memory, and a vision tower merges with them.
TEST_F(AdapterFolder, StreamsWhatMemoryHolds) {
  TestCheckpoint model = TestCheckpoint::micro();
  const std::string visual = "model.visual.blocks.0.attn.qkv";
  model.tensors[visual + ".weight"] = TestAdapter::random({48, 16}, 5, "F16");
  TestAdapter adapter = TestAdapter::of(model, {kUp, kQ, visual});
  model.write(base());
  adapter.write(lora());
  Result<LoadedModel> merged = merge();
  ASSERT_TRUE(merged.ok()) << merged.status().text();
  Result<Adapter> opened = Adapter::open(lora());
  ASSERT_TRUE(opened.ok()) << opened.status().text();
  const Result<MergedTensors> stream =
      merged_tensors(pool_, std::make_shared<const Adapter>(std::move(opened).value()), base());
  ASSERT_TRUE(stream.ok()) << stream.status().text();
  const Result<SafetensorsFolder> files = SafetensorsFolder::open(base());
  std::map<std::string, std::string> streamed;
  for (const SafetensorsFolder::Entry& entry : files->tensors()) {
    const Result<Tensor> tensor = (*stream)(*entry.info);
    ASSERT_TRUE(tensor.ok()) << tensor.status().text();
    if (tensor->empty()) continue;
    EXPECT_EQ(tensor->dtype(), *entry.info->type);
    streamed[std::string(model::module_name(entry.info->name))] = {static_cast<const char*>(tensor->raw()),
                                                                   tensor->bytes()};
  }
  EXPECT_EQ(streamed.size(), 3u);
  EXPECT_TRUE(streamed.contains(visual));
  int compared = 0;
  merged->weights.for_each_linear([&](std::string_view module, ops::Linear& linear) {
    const auto at = streamed.find(std::string(module));
    if (at == streamed.end()) return;
    ++compared;
    EXPECT_EQ(at->second, std::string(static_cast<const char*>(linear.weight.raw()), linear.weight.bytes())) << module;
  });
  EXPECT_EQ(compared, 2);
}

}  // namespace
}  // namespace nibble::checkpoint

#include <gtest/gtest.h>

#include <limits>

#include "base/rng.h"
#include "checkpoint/adapter.h"
#include "checkpoint/test_adapter.h"
#include "tests/support/temporary_folder.h"

namespace nibble::checkpoint {
namespace {

using test::TemporaryFolder;
using testing::Blob;
using testing::TestAdapter;
using testing::TestCheckpoint;

const std::string kUp = "model.layers.0.mlp.up_proj";
const std::string kQ = "model.layers.3.self_attn.q_proj";
const std::string kUpA = TestAdapter::name(kUp, 'A'), kUpB = TestAdapter::name(kUp, 'B');

Status merge(const Path& base, const Path& lora) {
  NIBBLE_TRY(adapter, Adapter::open(lora));
  NIBBLE_TRY(model, load_checkpoint(base));
  ThreadPool pool(1);
  return merge_adapter(pool, model, adapter);
}

struct Damage {
  const char* name;
  Code code;
  void (*apply)(TestAdapter& adapter);
  const char* message;  // must occur in the text
};

void rename(TestAdapter& adapter, const std::string& from, const std::string& to) {
  auto node = adapter.tensors.extract(from);
  node.key() = to;
  adapter.tensors.insert(std::move(node));
}

const Damage kDamages[] = {
    {"NotLora", Code::unsupported, [](TestAdapter& a) { a.config["peft_type"] = "IA3"; }, "IA3"},
    {"NoType", Code::unsupported, [](TestAdapter& a) { a.config.erase("peft_type"); }, "peft_type"},
    {"NotAnObject", Code::corrupt, [](TestAdapter& a) { a.config = Json::array(); }, "adapter_config.json"},
    {"Dora", Code::unsupported, [](TestAdapter& a) { a.config["use_dora"] = true; }, "use_dora"},
    {"FanIn", Code::unsupported, [](TestAdapter& a) { a.config["fan_in_fan_out"] = true; }, "fan_in_fan_out"},
    {"Bias", Code::unsupported, [](TestAdapter& a) { a.config["bias"] = "lora_only"; }, "bias"},
    {"LoraBias", Code::unsupported, [](TestAdapter& a) { a.config["lora_bias"] = true; }, "lora_bias"},
    {"ModulesToSave", Code::unsupported, [](TestAdapter& a) { a.config["modules_to_save"] = {"lm_head"}; },
     "modules_to_save"},
    {"Pissa", Code::unsupported, [](TestAdapter& a) { a.config["init_lora_weights"] = "pissa_niter_16"; }, "pissa"},
    {"UnknownField", Code::unsupported, [](TestAdapter& a) { a.config["use_tomorrow"] = true; }, "use_tomorrow"},
    {"NoRank", Code::corrupt, [](TestAdapter& a) { a.config.erase("r"); }, "r: "},
    {"RankZero", Code::corrupt, [](TestAdapter& a) { a.config["r"] = 0; }, "r: "},
    {"RankAText", Code::corrupt, [](TestAdapter& a) { a.config["r"] = "4"; }, "r: "},
    {"AlphaHuge", Code::corrupt, [](TestAdapter& a) { a.config["lora_alpha"] = 1e300; }, "lora_alpha"},
    {"RankOther", Code::corrupt, [](TestAdapter& a) { a.config["r"] = 8; }, "lora_A [8,in]"},
    {"RankPatternOther", Code::corrupt,
     [](TestAdapter& a) {
       a.config["rank_pattern"] = {{"up_proj", 2}};
     },
     "up_proj"},
    {"RankPatternBroken", Code::corrupt,
     [](TestAdapter& a) {
       a.config["rank_pattern"] = {{"(", 2}};
     },
     "rank_pattern"},
    {"RankPatternAList", Code::corrupt,
     [](TestAdapter& a) {
       a.config["rank_pattern"] = {1, 2};
     },
     "rank_pattern"},
    {"NoTargets", Code::corrupt, [](TestAdapter& a) { a.config["target_modules"] = nullptr; }, "target_modules"},
    {"TargetsOfNumbers", Code::corrupt, [](TestAdapter& a) { a.config["target_modules"] = {1}; }, "target_modules"},
    {"PatternBroken", Code::corrupt, [](TestAdapter& a) { a.config["target_modules"] = "(?:q_proj"; },
     "target_modules"},
    {"PatternEndless", Code::unsupported, [](TestAdapter& a) { a.config["target_modules"] = "(?:(?:.+)+)+[YZ]"; },
     "limits"},
    {"TargetWithoutTensors", Code::corrupt, [](TestAdapter& a) { a.config["target_modules"].push_back("k_proj"); },
     "k_proj"},
    {"TensorsWithoutTarget", Code::corrupt, [](TestAdapter& a) { a.config["target_modules"] = {"up_proj"}; }, "q_proj"},
    {"TargetedLayersMissing", Code::corrupt,
     [](TestAdapter& a) {
       a.config["target_modules"] = {"up_proj", "q_proj"};
     },
     "model.layers.1.mlp.up_proj"},
    {"NoB", Code::corrupt, [](TestAdapter& a) { a.tensors.erase(kUpB); }, "lora_A alone"},
    {"NoA", Code::corrupt, [](TestAdapter& a) { a.tensors.erase(kUpA); }, "lora_B alone"},
    {"NoTensors", Code::corrupt, [](TestAdapter& a) { a.tensors.clear(); }, "got none"},
    {"Twice", Code::corrupt,
     [](TestAdapter& a) { a.tensors["base_model.model." + kUp + ".lora_A.default.weight"] = a.tensors[kUpA]; },
     "one tensor of this module"},
    {"Magnitude", Code::unsupported,
     [](TestAdapter& a) { a.tensors["base_model.model." + kUp + ".lora_magnitude_vector"] = a.tensors[kUpA]; }, "DoRA"},
    {"Embedding", Code::unsupported,
     [](TestAdapter& a) { a.tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = a.tensors[kUpA]; },
     "embedding"},
    {"SavedHead", Code::unsupported,
     [](TestAdapter& a) { a.tensors["base_model.model.lm_head.weight"] = a.tensors[kUpA]; }, "lm_head"},
    {"ForeignName", Code::unsupported, [](TestAdapter& a) { rename(a, kUpA, kUp + ".lora_A.weight"); }, "MODULE"},
    {"Integers", Code::unsupported,
     [](TestAdapter& a) {
       a.tensors[kUpA] = {"U8", {4, 2}, std::string(8, '\0')};
     },
     "U8"},
    {"Convolution", Code::unsupported,
     [](TestAdapter& a) {
       a.tensors[kUpA] = TestAdapter::random({4, 2, 2}, 1);
     },
     "[4,2,2]"},
    {"NotANumber", Code::corrupt,
     [](TestAdapter& a) {
       const float nan = std::numeric_limits<float>::quiet_NaN();
       std::memcpy(a.tensors[kUpB].bytes.data(), &nan, sizeof nan);
     },
     "not finite"},
    {"Overflow", Code::corrupt,
     [](TestAdapter& a) {
       const float huge = 3e38f;
       std::memcpy(a.tensors[kUpB].bytes.data(), &huge, sizeof huge);
       a.config["lora_alpha"] = 1e6;
     },
     "after the merge"},
    {"WrongShape", Code::invalid_argument,
     [](TestAdapter& a) {
       a.tensors[kUpA] = TestAdapter::random({4, 32}, 1);
     },
     "org/right"},
    {"WrongLayer", Code::invalid_argument,
     [](TestAdapter& a) {
       rename(a, kUpA, TestAdapter::name("model.layers.40.mlp.up_proj", 'A'));
       rename(a, kUpB, TestAdapter::name("model.layers.40.mlp.up_proj", 'B'));
       a.config["target_modules"] = {"layers.40.mlp.up_proj", kQ};
     },
     "model.layers.40.mlp.up_proj"},
    {"ConvolutionOfTheBase", Code::invalid_argument,
     [](TestAdapter& a) {
       rename(a, kUpA, TestAdapter::name("model.layers.0.linear_attn.conv1d", 'A'));
       rename(a, kUpB, TestAdapter::name("model.layers.0.linear_attn.conv1d", 'B'));
       a.config["target_modules"] = {"conv1d", kQ};
     },
     "conv1d"},
};

class BadAdapter : public ::testing::TestWithParam<Damage> {};

TEST_P(BadAdapter, IsRefusedByName) {
  const TemporaryFolder folder;
  const TestCheckpoint model = TestCheckpoint::micro();
  model.write(folder.path() / "base");
  TestAdapter adapter = TestAdapter::of(model, {kUp, kQ});
  adapter.config["base_model_name_or_path"] = "org/right";
  GetParam().apply(adapter);
  adapter.write(folder.path() / "lora");
  const Status status = merge(folder.path() / "base", folder.path() / "lora");
  EXPECT_EQ(name(status.code()), std::string(name(GetParam().code))) << status.text();
  EXPECT_NE(status.text().find(GetParam().message), std::string::npos) << status.text();
}

INSTANTIATE_TEST_SUITE_P(All, BadAdapter, ::testing::ValuesIn(kDamages),
                         [](const auto& info) { return info.param.name; });

TEST(Adapters, MissingParts) {
  const TemporaryFolder folder;
  const Path lora = folder.path() / "lora";
  EXPECT_EQ(Adapter::open(lora).status().code(), Code::not_found);
  TestAdapter::of(TestCheckpoint::micro(), {kUp}).write(lora);
  std::filesystem::rename(lora / kAdapterWeightsFile, lora / "adapter_model.bin");
  const Status pickled = Adapter::open(lora).status();
  EXPECT_EQ(pickled.code(), Code::not_found);
  EXPECT_NE(pickled.hint().find("as safetensors"), std::string::npos) << pickled.text();
  std::filesystem::remove(lora / kAdapterConfigFile);
  EXPECT_NE(Adapter::open(lora).status().text().find(kAdapterConfigFile), std::string::npos);
}

TEST(Adapters, FourBitWeightsAreRefusedWithTheReason) {
  const TemporaryFolder folder;
  TestCheckpoint::micro_nvfp4().write(folder.path() / "base");
  TestAdapter::of(TestCheckpoint::micro(), {kUp}).write(folder.path() / "lora");
  const Status status = merge(folder.path() / "base", folder.path() / "lora");
  EXPECT_EQ(status.code(), Code::invalid_argument);
  EXPECT_NE(status.hint().find("would round the adapter away"), std::string::npos) << status.text();
}

TEST(Adapters, ATiedHeadIsRefused) {
  const TemporaryFolder folder;
  const TestCheckpoint model = TestCheckpoint::micro("micro_tied");
  model.write(folder.path() / "base");
  TestCheckpoint untied = model;
  untied.tensors["lm_head.weight"] = model.tensors.at("model.embed_tokens.weight");
  TestAdapter::of(untied, {"lm_head"}).write(folder.path() / "lora");
  const Status status = merge(folder.path() / "base", folder.path() / "lora");
  EXPECT_EQ(status.code(), Code::unsupported);
  EXPECT_NE(status.text().find("lm_head"), std::string::npos) << status.text();
}

TEST(Adapters, CutAndChangedFilesNeverCrash) {
  const TemporaryFolder folder;
  const Path lora = folder.path() / "lora";
  TestAdapter adapter = TestAdapter::of(TestCheckpoint::micro(), {kUp});
  adapter.config["rank_pattern"] = {{"q_proj", 4}};
  adapter.config["alpha_pattern"] = {{"q_.*", 4.5}};
  adapter.write(lora);
  const std::string config = *read_file(lora / kAdapterConfigFile);
  const std::string weights = *read_file(lora / kAdapterWeightsFile);
  for (size_t size = 0; size < config.size(); ++size) {
    testing::write_plain(lora / kAdapterConfigFile, config.substr(0, size));
    EXPECT_FALSE(Adapter::open(lora).ok()) << size;
  }
  Rng rng(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(rng.uniform() * static_cast<float>(n)) % n; };
  constexpr std::string_view kBytes = "{}[]\":,0123456789eE.-+()*?\\ntfalsr\xFF";
  for (int round = 0; round < 400; ++round) {
    std::string text = config;
    for (int i = 0; i <= round % 4; ++i) text[below(text.size())] = kBytes[below(kBytes.size())];
    testing::write_plain(lora / kAdapterConfigFile, text);
    (void)Adapter::open(lora).ok();
  }
  testing::write_plain(lora / kAdapterConfigFile, config);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = weights;
    bytes[below(400)] = kBytes[below(kBytes.size())];
    if (round % 5 == 0) bytes.resize(below(bytes.size()));
    testing::write_plain(lora / kAdapterWeightsFile, bytes);
    (void)Adapter::open(lora).ok();
  }
}

}  // namespace
}  // namespace nibble::checkpoint

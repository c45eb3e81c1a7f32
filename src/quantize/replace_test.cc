// Quantization of weights that are not those of the source: merged adapters.
#include <gtest/gtest.h>

#include "checkpoint/adapter.h"
#include "checkpoint/test_adapter.h"
#include "quantize/quantize.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

using checkpoint::testing::TestAdapter;
using checkpoint::testing::TestCheckpoint;
using test::TemporaryFolder;

std::map<std::string, std::string> tensors_of(const Path& folder) {
  std::map<std::string, std::string> out;
  const Result<SafetensorsFolder> files = SafetensorsFolder::open(folder);
  EXPECT_TRUE(files.ok()) << files.status().text();
  for (const SafetensorsFolder::Entry& entry : files->tensors()) {
    const std::span<const std::byte> bytes = entry.file->bytes(*entry.info);
    out[entry.info->name] = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  return out;
}

class MergedAdapter : public ::testing::Test {
 protected:
  Path at(const char* name) const { return folder_.path() / name; }

  // One linear that becomes four bits, one that stays, one of the head.
  void SetUp() override {
    const TestCheckpoint model = TestCheckpoint::micro();
    model.write(at("base"));
    TestAdapter::of(model, {"model.layers.0.mlp.up_proj", "model.layers.0.linear_attn.in_proj_a", "lm_head"})
        .write(at("lora"));
  }

  Status quantize(const char* from, const char* to, bool four_bits, bool adapted, int threads = 2) {
    ThreadPool pool(threads);
    QuantizeOptions options;
    options.quantize = four_bits;
    if (adapted) {
      NIBBLE_TRY(adapter, checkpoint::Adapter::open(at("lora")));
      auto shared = std::make_shared<const checkpoint::Adapter>(std::move(adapter));
      NIBBLE_TRY(merged, checkpoint::merged_tensors(pool, shared, at(from)));
      options.replace = std::move(merged);
    }
    return quantize_folder(at(from), at(to), options, pool).status();
  }

  TemporaryFolder folder_;
};

TEST_F(MergedAdapter, QuantizingIsMergingFirst) {
  const Status at_once = quantize("base", "at-once", true, true), merge = quantize("base", "merged", false, true);
  ASSERT_TRUE(at_once.ok()) << at_once.text();
  ASSERT_TRUE(merge.ok()) << merge.text();
  ASSERT_TRUE(quantize("merged", "later", true, false).ok());
  EXPECT_EQ(tensors_of(at("at-once")), tensors_of(at("later")));
  ASSERT_TRUE(quantize("base", "alone", true, false, 1).ok());
  EXPECT_NE(tensors_of(at("at-once")), tensors_of(at("alone")));
  ASSERT_TRUE(quantize("base", "one-thread", true, true, 1).ok());
  EXPECT_EQ(tensors_of(at("at-once")), tensors_of(at("one-thread")));
}

// Without four bits the folder is the source with the merged tensors: what memory would hold.
TEST_F(MergedAdapter, WritesAMergedFolder) {
  ASSERT_TRUE(quantize("base", "merged", false, true).ok());
  EXPECT_EQ(*read_file(at("base") / "config.json"), *read_file(at("merged") / "config.json"));
  ThreadPool pool(2);
  Result<checkpoint::LoadedModel> memory = checkpoint::load_checkpoint(at("base"));
  const Result<checkpoint::Adapter> adapter = checkpoint::Adapter::open(at("lora"));
  ASSERT_TRUE(memory.ok() && adapter.ok());
  ASSERT_TRUE(checkpoint::merge_adapter(pool, *memory, *adapter).ok());
  const std::map<std::string, std::string> written = tensors_of(at("merged")), source = tensors_of(at("base"));
  memory->weights.for_each_linear([&](std::string_view module, ops::Linear& linear) {
    const std::string name = std::string(module) + ".weight";
    EXPECT_EQ(written.at(name), std::string(static_cast<const char*>(linear.weight.raw()), linear.weight.bytes()));
    EXPECT_EQ(written.at(name) == source.at(name), adapter->find(module) == nullptr) << name;
  });
}

TEST_F(MergedAdapter, AnotherBaseLeavesNothingBehind) {
  TestCheckpoint model = TestCheckpoint::micro();
  TestAdapter adapter = TestAdapter::of(model, {"model.layers.0.mlp.up_proj"});
  for (auto& [name, blob] : adapter.tensors) {
    if (name.ends_with("lora_A.weight")) blob = TestAdapter::random({4, 32}, 1);
  }
  adapter.write(at("lora"));
  EXPECT_EQ(quantize("base", "out", true, true).code(), Code::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(at("out")));
}

}  // namespace
}  // namespace nibble::quantize

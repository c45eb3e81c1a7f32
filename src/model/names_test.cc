#include "model/names.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "base/file.h"
#include "io/safetensors.h"
#include "model/batch_forward.h"

namespace nibble::model {
namespace {

struct Row {
  std::string name, dtype, shape;
};

std::vector<Row> read_table(const std::string& file) {
  Result<std::string> text = read_file(NIBBLE_SOURCE_DIR "/tests/golden/qwen35_tables/" + file);
  EXPECT_TRUE(text.ok()) << text.status().text();
  std::vector<Row> rows;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    Row row;
    fields >> row.name >> row.dtype >> row.shape;
    if (!row.name.empty()) rows.push_back(row);
  }
  return rows;
}

std::string dims(const Shape& shape) {
  std::vector<int64_t> all;
  for (int i = 0; i < shape.rank(); ++i) all.push_back(shape[i]);
  return fmt::format("{}", fmt::join(all, "x"));
}

class Names : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

// Every row of a released table is exactly one slot with its shape and dtype, or belongs to the vision tower.
TEST_P(Names, EveryRowOfTheTableIsOneSlot) {
  const auto [file_size, size] = GetParam();
  const Config config = *builtin_config(size);
  for (const bool wrapped : {false, true}) {
    const std::vector<Row> rows = read_table(fmt::format("tensors.{}.{}.tsv", file_size, wrapped ? "vl" : "text"));
    std::map<std::string, TensorSlot> slots;
    const std::string_view prefix = wrapped ? kWrappedPrefix : kTextPrefix;
    for (const TensorSlot& slot : text_slots(config, prefix, *config.tie_embeddings)) {
      EXPECT_EQ(part_of(slot.name), Part::text) << slot.name;
      EXPECT_TRUE(slots.emplace(slot.name, slot).second) << slot.name;
    }
    if (wrapped) {
      for (const TensorSlot& slot : mtp_slots(config)) {
        EXPECT_EQ(part_of(slot.name), Part::mtp) << slot.name;
        EXPECT_TRUE(slots.emplace(slot.name, slot).second) << slot.name;
      }
    }
    size_t visual = 0;
    std::set<std::string> names;
    for (const Row& row : rows) {
      names.insert(row.name);
      if (part_of(row.name) == Part::visual) {
        ++visual;
        continue;
      }
      const auto slot = slots.find(row.name);
      ASSERT_NE(slot, slots.end()) << row.name;
      EXPECT_EQ(dims(slot->second.shape), row.shape) << row.name;
      EXPECT_EQ(safetensors_name(slot->second.dtype), row.dtype) << row.name;
    }
    EXPECT_EQ(names.size(), rows.size());
    EXPECT_EQ(rows.size() - visual, slots.size());
    EXPECT_EQ(visual > 0, wrapped);
    const auto found = find_prefix([&](std::string_view name) { return names.contains(std::string(name)); });
    ASSERT_TRUE(found.ok()) << found.status().text();
    EXPECT_EQ(*found, prefix);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Names,
                         testing::Values(std::tuple("0.8B", "0.8b"), std::tuple("2B", "2b"), std::tuple("4B", "4b"),
                                         std::tuple("9B", "9b"), std::tuple("27B", "27b")),
                         [](const auto& info) { return "Size" + std::to_string(info.index); });

TEST(NamesRules, PrefixNeedsExactlyOneEmbedding) {
  const auto with = [](std::set<std::string> names) {
    return find_prefix([=](std::string_view name) { return names.contains(std::string(name)); });
  };
  EXPECT_EQ(with({}).status().code(), Code::corrupt);
  EXPECT_EQ(with({"model.embed_tokens.weight", "model.language_model.embed_tokens.weight"}).status().code(),
            Code::corrupt);
  const auto repeated = with({"model.language_model.language_model.embed_tokens.weight"});
  EXPECT_NE(repeated.status().hint().find("repeated prefix"), std::string::npos);
}

TEST(NamesRules, PartsAndModules) {
  EXPECT_EQ(part_of("model.visual.blocks.0.norm1.weight"), Part::visual);
  EXPECT_EQ(part_of("mtp.fc.weight"), Part::mtp);
  EXPECT_EQ(part_of("model.language_model.norm.weight"), Part::text);
  EXPECT_EQ(part_of("model.layers.0.mlp.up_proj.weight_scale_2"), Part::text);
  EXPECT_EQ(part_of("lm_head.weight"), Part::text);
  EXPECT_EQ(part_of("model.projector.weight"), Part::other);
  EXPECT_EQ(part_of("rotary.inv_freq"), Part::other);
  EXPECT_EQ(module_name("lm_head.weight"), "lm_head");
  EXPECT_EQ(module_name("model.layers.0.linear_attn.A_log"), "model.layers.0.linear_attn.A_log");
  EXPECT_EQ(canonical_module("model.language_model.layers.1.mlp.up_proj"), "model.layers.1.mlp.up_proj");
  EXPECT_EQ(canonical_module("lm_head"), "lm_head");
}

TEST(NamesRules, ParametersMatchTheReleasedCounts) {
  const std::pair<const char*, int64_t> text[] = {{"0.8b", 752'393'024},
                                                  {"2b", 1'881'825'088},
                                                  {"4b", 4'205'751'296},
                                                  {"9b", 8'953'803'264},
                                                  {"27b", 26'895'998'464}};
  const int64_t mtp[] = {20'452'864, 60'828'160, 120'599'552, 243'290'624, 424'699'392};
  for (size_t i = 0; i < std::size(text); ++i) {
    const Config c = *builtin_config(text[i].first);
    int64_t n = 0, m = 0;
    for (const TensorSlot& slot : text_slots(c, kTextPrefix, *c.tie_embeddings)) n += slot.shape.elements();
    for (const TensorSlot& slot : mtp_slots(c)) m += slot.shape.elements();
    EXPECT_EQ(n, text[i].second) << text[i].first;
    EXPECT_EQ(m, mtp[i]) << text[i].first;
  }
}

TEST(Weights, LinearsComeInTableOrderWithTheHeadLast) {
  const Config c = *builtin_config("0.8b");
  for (const bool tied : {false, true}) {
    Weights w = blank_weights(c, kWrappedPrefix, tied);
    std::vector<std::string> names;
    w.for_each_linear([&](std::string_view name, ops::Linear&) { names.emplace_back(name); });
    ASSERT_EQ(names.size(), 18u * 8 + 6 * 7 + 1);
    EXPECT_EQ(names.front(), "model.language_model.layers.0.linear_attn.in_proj_qkv");
    EXPECT_EQ(names.back(), "lm_head");
    EXPECT_TRUE(w.blocks[3].attention && !w.blocks[3].gdn);
    EXPECT_TRUE(!w.blocks[4].attention && w.blocks[4].gdn);
  }
}

TEST(Weights, BytesPerTokenCountsLinearsOnceAndOneEmbeddingRow) {
  Weights w;
  w.config.vocab = 10;
  w.tied = true;
  const Buffer& memory = w.own(Buffer::for_tensor(DType::bf16, {10, 8}));
  w.embed = memory.tensor(DType::bf16, {10, 8});
  w.lm_head = dense_linear(w.embed);
  EXPECT_EQ(w.lm_head.format, ops::WeightFormat::bf16);
  EXPECT_EQ(bytes_per_token(w), 160u + 16u);
}

TEST(ToDevice, RefusesAnMlpOfTwoKindsAtTheDoor) {
  Weights w = blank_weights(*builtin_config("0.8b"), kTextPrefix, true);
  w.blocks[1].mlp.up_proj.inputs = ops::InputRounding::nvfp4_token;
  ThreadPool pool(1);
  Context cx(pool);
  const Status status = to_device(cx, w).status();
  EXPECT_EQ(status.code(), Code::unsupported);
  EXPECT_NE(status.message().find("layer 1: gate_proj and up_proj"), std::string::npos) << status.text();
}

}  // namespace
}  // namespace nibble::model

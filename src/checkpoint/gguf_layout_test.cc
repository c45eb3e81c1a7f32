#include "checkpoint/gguf_layout.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace nibble::checkpoint {
namespace {

using model::TensorKind;

TEST(GgufLayout, NamesAndShapes) {
  const model::Config c = *model::builtin_config("9b");
  std::map<std::string, std::string> names;
  for (const GgufSlot& slot : gguf_slots(c, model::kWrappedPrefix, false, 1)) {
    EXPECT_TRUE(names.emplace(slot.hf.name, slot.name).second);
    if (slot.hf.kind == TensorKind::conv) {
      EXPECT_EQ(slot.shape, (std::vector<int64_t>{8192, 4}));
    }
  }
  const std::string p = "model.language_model.layers.";
  EXPECT_EQ(names.at("model.language_model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(names.at("model.language_model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(names.at("lm_head.weight"), "output.weight");
  EXPECT_EQ(names.at(p + "0.linear_attn.A_log"), "blk.0.ssm_a");
  EXPECT_EQ(names.at(p + "0.linear_attn.dt_bias"), "blk.0.ssm_dt.bias");
  EXPECT_EQ(names.at(p + "0.linear_attn.in_proj_b.weight"), "blk.0.ssm_beta.weight");
  EXPECT_EQ(names.at(p + "30.linear_attn.out_proj.weight"), "blk.30.ssm_out.weight");
  EXPECT_EQ(names.at(p + "31.self_attn.o_proj.weight"), "blk.31.attn_output.weight");
  EXPECT_EQ(names.at(p + "31.post_attention_layernorm.weight"), "blk.31.post_attention_norm.weight");
  EXPECT_EQ(names.at("mtp.fc.weight"), "blk.32.nextn.eh_proj.weight");
  EXPECT_EQ(names.at("mtp.norm.weight"), "blk.32.nextn.shared_head_norm.weight");
  EXPECT_EQ(names.at("mtp.pre_fc_norm_hidden.weight"), "blk.32.nextn.hnorm.weight");
  EXPECT_EQ(names.at("mtp.layers.0.self_attn.q_norm.weight"), "blk.32.attn_q_norm.weight");
  std::set<std::string> unique;
  for (const auto& [hf, gguf] : names) unique.insert(gguf);
  EXPECT_EQ(unique.size(), names.size());
}

// GGUF's view [r,Hk,d] against the checkpoint's [Hk,r,d]: r = 3, Hk = 2, heads named k * 3 + j.
TEST(GgufLayout, ValueHeadsAreTiled) {
  model::Config c = *model::builtin_config("9b");
  c.key_heads = 2;
  c.value_heads = 6;
  c.key_head_dim = c.value_head_dim = 16;
  const std::vector<int64_t> order = {0, 3, 1, 4, 2, 5};
  for (const GgufSlot& slot : gguf_slots(c, model::kTextPrefix, false, 0)) {
    if (slot.name == "blk.0.ssm_a") {
      for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(checkpoint_index(c, slot, i), order[static_cast<size_t>(i)]);
    } else if (slot.name == "blk.0.attn_qkv.weight") {
      EXPECT_EQ(slot.order, HeadOrder::rows_of_v);
      EXPECT_EQ(checkpoint_index(c, slot, 63), 63);
      EXPECT_EQ(checkpoint_index(c, slot, 64 + 16 + 5), 64 + 3 * 16 + 5);
    } else if (slot.name == "blk.0.ssm_out.weight") {
      EXPECT_EQ(slot.order, HeadOrder::columns);
      EXPECT_EQ(checkpoint_index(c, slot, 2 * 16 + 1), 1 * 16 + 1);
    }
  }
}

}  // namespace
}  // namespace nibble::checkpoint

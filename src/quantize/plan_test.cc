#include "quantize/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/fused_linears.h"
#include "quantize/test_plan.h"

namespace nibble::quantize {
namespace {

using testing_plan::find;
using testing_plan::info;
using testing_plan::plan;
using testing_plan::released_tensors;

struct Released {
  const char* size;
  int64_t delta_layers, attention_layers;
  bool tied;
};

class ReleasedPlan : public testing::TestWithParam<Released> {};

TEST_P(ReleasedPlan, QuantizesExactlyTheLinearsOfTheMainStack) {
  const Released& model = GetParam();
  for (const char* form : {"text", "vl"}) {
    const std::vector<TensorInfo> tensors = released_tensors(model.size, form);
    const Result<Plan> made = plan(tensors, {.tied = model.tied});
    ASSERT_TRUE(made.ok()) << made.status().text();
    // Delta layers: qkv, z, out, gate, up, down; attention layers: q, k, v, o, gate, up, down.
    EXPECT_EQ(made->quantized, 6 * model.delta_layers + 7 * model.attention_layers);
    // qkv+z, out, gate+up, down; q+k+v, o, gate+up, down.
    EXPECT_EQ(made->groups, 4 * (model.delta_layers + model.attention_layers));
    uint64_t elements = 0;
    for (const PlannedTensor& tensor : made->tensors) {
      if (!tensor.quantized()) {
        EXPECT_EQ(tensor.bytes, tensor.source->bytes);
        EXPECT_EQ(tensor.group, -1);
        continue;
      }
      for (const char* part : {"conv1d", "in_proj_a", "in_proj_b", "norm", "mtp", "visual", "embed", "lm_head"}) {
        EXPECT_EQ(tensor.source->name.find(part), std::string::npos) << tensor.source->name;
      }
      EXPECT_GE(tensor.group, 0);
      elements += tensor.source->bytes / 2;
    }
    EXPECT_EQ(made->bytes, made->source_bytes - 2 * elements + elements / 2 + elements / 16 +
                               4 * static_cast<uint64_t>(made->quantized));

    // Three modules per delta layer, the embedding and the head, and the wildcards.
    const bool vision = std::string(form) == "vl";
    const std::vector<std::string> excluded = checkpoint::excluded_patterns(made->modules);
    const bool mtp =
        std::any_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.name.starts_with("mtp."); });
    EXPECT_EQ(static_cast<int64_t>(excluded.size()), 3 * model.delta_layers + 2 + (vision ? 1 : 0) + (mtp ? 1 : 0));
    EXPECT_EQ(std::count(excluded.begin(), excluded.end(), "model.visual*"), vision ? 1 : 0);
    EXPECT_EQ(std::count(excluded.begin(), excluded.end(), "lm_head"), 1);
    EXPECT_TRUE(std::is_sorted(excluded.begin(), excluded.end()));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ReleasedPlan,
                         testing::Values(Released{"0.8B", 18, 6, true}, Released{"2B", 18, 6, true},
                                         Released{"4B", 24, 8, true}, Released{"9B", 24, 8, false},
                                         Released{"27B", 48, 16, false}));

TEST(Plan, BytesPerTokenOfTheNineBillionModel) {
  // Linears 6.92e9 weights at 4.5 bits, head 1.017e9 at 16 bits, in GB as the table of sizes has it.
  const std::vector<TensorInfo> tensors = released_tensors("9B", "vl");
  const Result<Plan> made = plan(tensors);
  ASSERT_TRUE(made.ok());
  EXPECT_NEAR(static_cast<double>(made->bytes_per_token) * 1e-9, 5.93, 0.02);
}

TEST(Plan, GroupsFollowTheFusedLinears) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  const Result<Plan> made = plan(tensors, {.tied = true});
  ASSERT_TRUE(made.ok());
  for (const PlannedTensor& a : made->tensors) {
    for (const PlannedTensor& b : made->tensors) {
      if (!a.quantized() || !b.quantized()) continue;
      ASSERT_EQ(a.group == b.group, checkpoint::fused_module(a.module) == checkpoint::fused_module(b.module));
    }
  }
  EXPECT_EQ(find(*made, "model.language_model.layers.3.self_attn.q_proj.weight").group,
            find(*made, "model.language_model.layers.3.self_attn.v_proj.weight").group);
  EXPECT_NE(find(*made, "model.language_model.layers.3.mlp.up_proj.weight").group,
            find(*made, "model.language_model.layers.2.mlp.up_proj.weight").group);
}

TEST(Plan, ReasonsNameWhyATensorStays) {
  const std::vector<TensorInfo> tensors = released_tensors("9B", "vl");
  const Result<Plan> made = plan(tensors);
  ASSERT_TRUE(made.ok());
  const std::string layer = "model.language_model.layers.0.";
  EXPECT_EQ(find(*made, layer + "mlp.up_proj.weight").reason, "linear of the main stack");
  EXPECT_EQ(find(*made, layer + "input_layernorm.weight").reason, "norm");
  EXPECT_EQ(find(*made, layer + "linear_attn.conv1d.weight").reason, "convolution");
  EXPECT_EQ(find(*made, "mtp.layers.0.mlp.up_proj.weight").reason, "draft head (MTP)");
  EXPECT_EQ(find(*made, "model.visual.blocks.0.mlp.linear_fc1.weight").reason, "vision tower");
  EXPECT_EQ(find(*made, "lm_head.weight").reason, "output head");
}

TEST(Plan, OddShapesAndTypesStay) {
  const std::vector<TensorInfo> tensors = {
      info("model.layers.0.mlp.down_proj.weight", {32, 40}),
      info("model.layers.0.self_attn.o_proj.weight", {32, 32}, DType::f8e4m3),
      info("model.layers.1.self_attn.o_proj.weight", {32, 0}),
      info("model.layers.1.mlp.down_proj.weight", {32, 48}),
      info("model.layers.x.mlp.down_proj.weight", {32, 48}),
      info("model.layers.1.other.down_proj.weight", {32, 48}),
  };
  const Result<Plan> made = plan(tensors);
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_EQ(made->quantized, 1);
  EXPECT_EQ(made->tensors[0].reason, "40 columns are not a positive multiple of 16");
  EXPECT_EQ(made->tensors[1].reason, "stored as F8_E4M3");
  EXPECT_EQ(made->tensors[2].reason, "0 columns are not a positive multiple of 16");
  EXPECT_TRUE(made->tensors[3].quantized());
  EXPECT_EQ(made->tensors[4].reason, "not a linear of the main stack");
  EXPECT_EQ(made->tensors[5].reason, "not a linear of the main stack");
}

TEST(Plan, ExcludesWorkUnderBothPrefixesAndTakeTheirGroupAlong) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  for (const char* pattern : {"model.layers.3.self_attn.k_proj", "layers.3.self_attn.k_proj",
                              "*layers.3.*k_proj.weight", "layers.3.*k_proj"}) {
    const Result<Plan> made = plan(tensors, {.exclude = {pattern}, .tied = true});
    ASSERT_TRUE(made.ok()) << made.status().text();
    EXPECT_EQ(made->quantized, 150 - 3);
    const std::string attention = "model.language_model.layers.3.self_attn.";
    EXPECT_EQ(find(*made, attention + "k_proj.weight").reason, std::string("excluded by ") + pattern);
    EXPECT_EQ(find(*made, attention + "q_proj.weight").reason,
              "servers fuse it with " + attention + "k_proj, which stays");
    EXPECT_TRUE(find(*made, attention + "o_proj.weight").quantized());
    const std::vector<std::string> excluded = checkpoint::excluded_patterns(made->modules);
    for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
      EXPECT_EQ(std::count(excluded.begin(), excluded.end(), attention + part), 1);
    }
  }
}

TEST(Plan, AnExcludeThatMatchesNothingIsAnError) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "text");
  const Result<Plan> none = plan(tensors, {.exclude = {"*mlp.gate"}, .tied = true});
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.status().code(), Code::invalid_argument);
  EXPECT_EQ(none.status().message(),
            "exclude: expected a pattern that matches a tensor, got \"*mlp.gate\", which matches none");
  EXPECT_NE(none.status().text().find("the nearest names are mlp.gate_proj, "), std::string::npos)
      << none.status().text();
  const Result<Plan> all = plan(tensors, {.exclude = {"*"}, .tied = true});
  ASSERT_FALSE(all.ok());
  EXPECT_EQ(all.status().code(), Code::invalid_argument);
  // What can never be quantized need not be excluded: whoever tries means something else.
  for (const char* pattern : {"embed_tokens", "norm", "*conv1d*", "A_log"}) {
    const Result<Plan> made = plan(tensors, {.exclude = {pattern}, .tied = true});
    ASSERT_FALSE(made.ok()) << pattern;
    EXPECT_EQ(
        made.status().message(),
        fmt::format("exclude: expected a pattern of tensors that can be quantized, got \"{}\", which matches none",
                    pattern));
  }
  for (const char* pattern : {"lm_head", "in_proj_a", "linear_attn", "layers.0.*"}) {
    EXPECT_TRUE(plan(tensors, {.exclude = {pattern}, .tied = true}).ok()) << pattern;
  }
}

}  // namespace
}  // namespace nibble::quantize

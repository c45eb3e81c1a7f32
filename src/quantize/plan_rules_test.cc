// Plans of more than one format: rules, choices of a search, the head.
#include <gtest/gtest.h>

#include "checkpoint/fused_linears.h"
#include "quantize/test_plan.h"
#include "tensor/numeric.h"

namespace nibble::quantize {
namespace {

using testing_plan::find;
using testing_plan::plan;
using testing_plan::released_tensors;

const std::string kPrefix = "model.language_model.layers.";

PlanOptions options_of(const std::string& recipe, bool tied) {
  return {.rules = find_recipe(recipe)->rules, .tied = tied};
}

TEST(PlanRules, EveryRecipeMakesAPlanForEveryModel) {
  for (const Recipe& recipe : recipes()) {
    for (const char* size : {"0.8B", "9B"}) {
      const bool tied = std::string(size) == "0.8B";
      const std::vector<TensorInfo> tensors = released_tensors(size, "vl");
      PlanOptions options = options_of(recipe.name, tied);
      options.untie = true;
      const Result<Plan> made = plan(tensors, options);
      ASSERT_TRUE(made.ok()) << recipe.name << ": " << made.status().text();
      EXPECT_GE(made->effective_bits, 4.5) << recipe.name;
      EXPECT_EQ(made->untied, tied && recipe.quantizes_head()) << recipe.name;
      for (const PlannedTensor& tensor : made->tensors) {
        if (tensor.quantized()) {
          EXPECT_TRUE(tensor.quantizable) << tensor.name;
        } else {
          EXPECT_EQ(tensor.inputs, Inputs::a16) << tensor.name;
        }
      }
    }
  }
}

TEST(PlanRules, FormatsAndBitsOfNvidiasRecipe) {
  const std::vector<TensorInfo> tensors = released_tensors("9B", "vl");
  const Result<Plan> made = plan(tensors, options_of("nvidia", false));
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_EQ(find(*made, kPrefix + "0.linear_attn.in_proj_z.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, kPrefix + "0.linear_attn.in_proj_z.weight").inputs, Inputs::a8);
  EXPECT_EQ(find(*made, kPrefix + "3.self_attn.o_proj.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, kPrefix + "3.mlp.up_proj.weight").format, Format::nvfp4);
  EXPECT_EQ(find(*made, "lm_head.weight").format, Format::nvfp4);
  EXPECT_FALSE(find(*made, kPrefix + "0.linear_attn.in_proj_a.weight").quantized());
  // MLP 4.83e9 weights at 4.5 bits, 2.09e9 at 8: 5.56; the head's 1.017e9 at 4.5 more.
  EXPECT_NEAR(made->effective_bits, 5.56, 0.01);
  EXPECT_NEAR(made->effective_bits_with_head, 5.42, 0.01);
  EXPECT_NEAR(static_cast<double>(made->bytes_per_token) * 1e-9, 5.38, 0.03);  // GB, as the table of sizes has it
}

TEST(PlanRules, TheLastLayersAreCountedFromTheEnd) {
  const std::vector<TensorInfo> tensors = released_tensors("9B", "text");
  const Result<Plan> made = plan(tensors, options_of("w4a4_mlp_fp8", false));
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_EQ(find(*made, "model.layers.23.mlp.up_proj.weight").format, Format::nvfp4);
  EXPECT_EQ(find(*made, "model.layers.23.mlp.up_proj.weight").inputs, Inputs::a4);
  EXPECT_EQ(find(*made, "model.layers.24.mlp.up_proj.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, "model.layers.31.mlp.down_proj.weight").format, Format::fp8);
}

TEST(PlanRules, LaterRulesWin) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  const Result<Plan> made = plan(tensors, {.rules = {{"*", Format::nvfp4, Inputs::a4, 0},
                                                     {"layers.0", Format::fp8_channel, Inputs::a16, 0},
                                                     {"layers.0.mlp", Format::unchanged, Inputs::a16, 0}},
                                           .tied = true});
  ASSERT_TRUE(made.ok()) << made.status().text();
  const PlannedTensor& channel = find(*made, kPrefix + "0.linear_attn.out_proj.weight");
  EXPECT_EQ(channel.format, Format::fp8_channel);
  const auto rows = static_cast<uint64_t>(channel.source->shape[0]),
             columns = static_cast<uint64_t>(channel.source->shape[1]);
  EXPECT_EQ(channel.bytes, rows * columns + 4 * rows);
  EXPECT_FALSE(find(*made, kPrefix + "0.mlp.down_proj.weight").quantized());
  const PlannedTensor& four_bits = find(*made, kPrefix + "1.mlp.down_proj.weight");
  EXPECT_EQ(four_bits.bytes, four_bits.source->bytes / 4 + four_bits.source->bytes / 32 + 8);
}

TEST(PlanRules, RulesMayNotDivideAFusedGroup) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  const Result<Plan> formats =
      plan(tensors,
           {.rules = {{"*", Format::nvfp4, Inputs::a16, 0}, {"layers.3.self_attn.k_proj", Format::fp8, Inputs::a16, 0}},
            .tied = true});
  EXPECT_EQ(formats.status().code(), Code::invalid_argument);
  EXPECT_NE(formats.status().message().find("with which servers fuse it"), std::string::npos);
  const Result<Plan> part = plan(tensors, {.rules = {{"mlp.up_proj", Format::nvfp4, Inputs::a16, 0}}, .tied = true});
  EXPECT_EQ(part.status().code(), Code::invalid_argument);
}

TEST(PlanRules, ARuleThatReachesNothingIsAnError) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  for (const char* pattern : {"mlp.gate", "embed_tokens", "visual", "mtp", "conv1d"}) {
    const Result<Plan> made = plan(tensors, {.rules = {{pattern, Format::nvfp4, Inputs::a16, 0}}, .tied = true});
    ASSERT_EQ(made.status().code(), Code::invalid_argument) << pattern;
    EXPECT_TRUE(made.status().message().starts_with("rule: expected a pattern")) << made.status().text();
    EXPECT_NE(made.status().text().find("the nearest names are"), std::string::npos);
  }
}

TEST(PlanRules, GatesOfTheDeltaRuleOnlyByName) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  const Result<Plan> made = plan(tensors, {.rules = {{"linear_attn", Format::nvfp4, Inputs::a16, 0},
                                                     {"in_proj_a", Format::fp8, Inputs::a16, 0},
                                                     {"in_proj_b", Format::fp8, Inputs::a16, 0}},
                                           .tied = true});
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_EQ(find(*made, kPrefix + "0.linear_attn.in_proj_a.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, kPrefix + "0.linear_attn.in_proj_qkv.weight").format, Format::nvfp4);
}

TEST(PlanRules, ATiedHeadNeedsToBeUntied) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  PlanOptions options = options_of("compact", true);
  const Result<Plan> refused = plan(tensors, options);
  ASSERT_EQ(refused.status().code(), Code::invalid_argument);
  EXPECT_NE(refused.status().text().find("--untie"), std::string::npos) << refused.status().text();
  options.exclude = {"lm_head"};
  const Result<Plan> without = plan(tensors, options);
  ASSERT_TRUE(without.ok()) << without.status().text();
  EXPECT_FALSE(without->untied);
  EXPECT_EQ(without->tensors.size(), tensors.size());

  options.exclude.clear();
  options.untie = true;
  const Result<Plan> made = plan(tensors, options);
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_TRUE(made->untied);
  ASSERT_EQ(made->tensors.size(), tensors.size() + 1);
  const PlannedTensor& head = made->tensors.back();
  EXPECT_EQ(head.name, "lm_head.weight");
  EXPECT_EQ(head.source->name, "model.language_model.embed_tokens.weight");
  EXPECT_EQ(made->bytes, without->bytes + head.bytes);
  EXPECT_EQ(made->source_bytes, without->source_bytes);
  // The head is read at 4.5 bits, of the embedding one row of 1024.
  EXPECT_EQ(without->bytes_per_token - made->bytes_per_token,
            head.source->bytes - (head.bytes - 4) - 1024 * size_of(DType::bf16));
  EXPECT_GT(without->effective_bits_with_head, made->effective_bits_with_head);
  EXPECT_EQ(without->effective_bits, 4.5);
  EXPECT_EQ(made->effective_bits_with_head, 4.5);
}

TEST(PlanRules, ChoicesOfASearchOverrideRulesAndNotExcludes) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  PlanOptions options = options_of("mse", true);
  options.formats = {{kPrefix + "0.mlp.gate_up_proj", {Format::fp8, Inputs::a16}},
                     {kPrefix + "1.mlp.gate_up_proj", {Format::fp8, Inputs::a16}},
                     {kPrefix + "2.mlp.down_proj", {}}};
  options.exclude = {"layers.1.mlp.up_proj"};
  const Result<Plan> made = plan(tensors, options);
  ASSERT_TRUE(made.ok()) << made.status().text();
  EXPECT_EQ(find(*made, kPrefix + "0.mlp.up_proj.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, kPrefix + "0.mlp.gate_proj.weight").format, Format::fp8);
  EXPECT_EQ(find(*made, kPrefix + "1.mlp.gate_proj.weight").format, Format::unchanged);
  EXPECT_EQ(find(*made, kPrefix + "2.mlp.down_proj.weight").reason, "kept within the budget");
  EXPECT_EQ(find(*made, kPrefix + "2.mlp.up_proj.weight").format, Format::nvfp4);
  options.formats = {{kPrefix + "0.mlp.up_proj", {Format::fp8, Inputs::a16}}};
  EXPECT_EQ(plan(tensors, options).status().code(), Code::invalid_argument);
}

TEST(PlanRules, LowRankBranchesCount) {
  const std::vector<TensorInfo> tensors = released_tensors("0.8B", "vl");
  PlanOptions options = options_of("svdquant", true);
  options.rank = 32;
  const Result<Plan> made = plan(tensors, options);
  ASSERT_TRUE(made.ok()) << made.status().text();
  const PlannedTensor& up = find(*made, kPrefix + "0.mlp.up_proj.weight");
  const int64_t rows = up.source->shape[0], columns = up.source->shape[1];
  EXPECT_EQ(up.rank, 32);
  EXPECT_EQ(up.bytes, static_cast<uint64_t>(rows * columns * 9 / 16 + 4 + 2 * 32 * (rows + columns)));
  EXPECT_GT(made->effective_bits, 4.5);
  EXPECT_TRUE(made->modules.uniform());
  EXPECT_TRUE(made->modules.quantized[0].low_rank);
}

}  // namespace
}  // namespace nibble::quantize

#include "checkpoint/name_pattern.h"

#include <gtest/gtest.h>

#include "checkpoint/quantized_modules.h"

namespace nibble::checkpoint {
namespace {

const std::string kLayer = "model.layers.0.";

TEST(NamePattern, WithoutALeadingStarItBeginsAtAnyDot) {
  const struct {
    const char *pattern, *name;
    bool matches;
  } cases[] = {
      {"linear_attn", "model.layers.0.linear_attn.in_proj_qkv", true},
      {"linear_attn", "model.language_model.layers.0.linear_attn.in_proj_qkv.weight", true},
      {"attn", "model.layers.0.linear_attn.in_proj_qkv", false},
      {"layers.0.*", "model.layers.0.mlp.up_proj", true},
      {"layers.0.*", "model.layers.10.mlp.up_proj", false},
      {"layers.1", "model.layers.10.mlp.up_proj", false},
      {"layers.1", "model.layers.1.mlp.up_proj", true},
      {"layers.1*", "model.layers.10.mlp.up_proj", true},
      {"layers.*.mlp", "model.layers.10.mlp.up_proj.weight", true},
      {"layers.*.mlp.up_proj", "model.layers.10.mlp.up_proj.weight", true},
      {"in_proj_*", "model.layers.10.linear_attn.in_proj_z", true},
      {"model.layers.3", "model.language_model.layers.3.mlp.up_proj", true},
      {"model.language_model.layers.3", "model.layers.3.mlp.up_proj", true},
      {"mlp.gate", "model.layers.0.mlp.gate_proj", false},
      {"lm_head", "lm_head.weight", true},
      {"head", "lm_head.weight", false},
      {"", "lm_head", false},
      {"*", "lm_head", true},
      {"*head", "lm_head", true},
      {"*.mlp.*", "model.layers.10.mlp.up_proj", true},
      {"*mlp", "model.layers.10.mlp.up_proj", false},
      {"*proj", "model.layers.10.mlp.up_proj.weight", false},
  };
  for (const auto& c : cases) EXPECT_EQ(matches_name(c.pattern, c.name), c.matches) << c.pattern << " " << c.name;
}

TEST(NamePattern, AHostilePatternCostsPatternTimesName) {
  std::string stars;
  for (int i = 0; i < 2000; ++i) stars += "*a";
  EXPECT_FALSE(matches_name(stars + "b", std::string(20'000, 'a')));
}

TEST(NamePattern, NamingIsSpellingOutTheLastComponent) {
  for (const char* pattern : {"in_proj_a", "*in_proj_a", "*linear_attn.in_proj_a", "layers.*.linear_attn.in_proj_a",
                              "in_proj_a*", "model.layers.0.linear_attn.in_proj_a.weight"}) {
    EXPECT_TRUE(spells_module(pattern, kLayer + "linear_attn.in_proj_a")) << pattern;
  }
  for (const char* pattern : {"linear_attn", "*", "*linear_attn.*", "layers.0", "in_proj_*", "layers.1.*.in_proj_a"}) {
    EXPECT_FALSE(spells_module(pattern, kLayer + "linear_attn.in_proj_a")) << pattern;
  }
  EXPECT_TRUE(spells_module("lm_head", "lm_head"));
  EXPECT_TRUE(spells_module("lm_head*", "lm_head"));
  EXPECT_FALSE(spells_module("*", "lm_head"));
}

TEST(NamePattern, NearestNamesAreRunsOfComponents) {
  const std::vector<std::string> names = {kLayer + "mlp.gate_proj.weight", kLayer + "mlp.up_proj.weight",
                                          "model.layers.11.mlp.up_proj.weight", kLayer + "self_attn.q_proj.weight",
                                          "lm_head.weight"};
  EXPECT_EQ(nearest_names("mlp.gate", names, 1), std::vector<std::string>{"mlp.gate_proj"});
  EXPECT_EQ(nearest_names("*mlp.gate", names, 1), std::vector<std::string>{"mlp.gate_proj"});
  EXPECT_EQ(nearest_names("gateproj", names, 1), std::vector<std::string>{"gate_proj"});
  EXPECT_EQ(nearest_names("mlp.gat", names, 2), (std::vector<std::string>{"mlp.gate_proj", "mlp.up_proj"}));
  EXPECT_EQ(nearest_names("lmhead", names, 1), std::vector<std::string>{"lm_head"});
  EXPECT_EQ(nearest_names("layers.12.mlp.up_proj", names, 2),
            (std::vector<std::string>{"layers.11.mlp.up_proj", "layers.0.mlp.up_proj"}));
  EXPECT_EQ(nearest_names("layers.*.mpl", names, 1), std::vector<std::string>{"layers.0.mlp"});
  EXPECT_EQ(nearest_names("a.b.c.d.e.f.g.h", names), std::vector<std::string>());
  EXPECT_EQ(nearest_names("", names, 1).size(), 1u);
}

TEST(QuantizedModules, ExcludesAreTheShortestPrefixes) {
  QuantizedModules modules;
  modules.quantized = {{"model.layers.0.mlp.up_proj"}, {"model.layers.10.mlp.up_proj"}};
  modules.unquantized = {"lm_head",
                         "model.embed_tokens",
                         "model.layers.0.mlp.gate_proj",
                         "model.layers.0.self_attn.q_proj",
                         "model.layers.0.self_attn.k_proj",
                         "model.layers.1.mlp.up_proj",
                         "model.layers.1.self_attn.q_proj",
                         "model.layers.2.mlp.up_proj",
                         "mtp.fc",
                         "mtp.layers.0.mlp.up_proj"};
  EXPECT_EQ(excluded_patterns(modules),
            (std::vector<std::string>{"lm_head", "model.embed_tokens", "model.layers.0.mlp.gate_proj",
                                      "model.layers.0.self_attn*", "model.layers.1", "model.layers.1.*",
                                      "model.layers.2*", "mtp*"}));
}

}  // namespace
}  // namespace nibble::checkpoint

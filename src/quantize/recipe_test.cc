#include "quantize/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "base/file.h"
#include "tests/support/temporary_folder.h"

namespace nibble::quantize {
namespace {

Json json_of(std::string_view text) {
  Result<Json> json = parse_json(text, "test");
  EXPECT_TRUE(json.ok()) << text;
  return std::move(json).value();
}

TEST(Recipe, TheBinaryHoldsTheFilesOfTheFolder) {
  std::set<std::string> files, names;
  for (const auto& entry : std::filesystem::directory_iterator(NIBBLE_SOURCE_DIR "/recipes/quant")) {
    if (entry.path().stem() != "schema") files.insert(entry.path().stem().string());
  }
  for (const Recipe& recipe : recipes()) {
    names.insert(recipe.name);
    EXPECT_FALSE(recipe.title.empty()) << recipe.name;
    EXPECT_LT(recipe.title.size(), 100u) << recipe.name;
    EXPECT_NE(recipe_list().find(recipe.title), std::string::npos);
    const Result<Recipe> from_file = find_recipe(NIBBLE_SOURCE_DIR "/recipes/quant/" + recipe.name + ".json");
    ASSERT_TRUE(from_file.ok()) << from_file.status().text();
    EXPECT_EQ(*from_file, recipe);
    EXPECT_EQ(*find_recipe(recipe.name), recipe);
  }
  EXPECT_EQ(files, names);
  for (const char* name :
       {"nvidia", "compact", "w4a4_mlp_fp8", "seeds-v1", "best", "best_head", "max", "mse", "four_over_six",
        "local_hessian", "gptq", "awq_lite", "awq_clip", "mlp_only", "svdquant", "signround", "auto_mixed"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(Recipe, TheSchemaKnowsEveryKeyThatTheParserKnows) {
  const Json schema = json_of(*read_file(NIBBLE_SOURCE_DIR "/recipes/quant/schema.json"));
  Recipe recipe = *find_recipe("auto_mixed");
  recipe.rules[0].last_layers = 1;
  const Json json = recipe_json(recipe), rule = json["rules"][0];
  for (const auto& item : json.items()) EXPECT_TRUE(schema["properties"].contains(item.key())) << item.key();
  EXPECT_EQ(schema["properties"].size(), json.size());
  const Json& rule_keys = schema["properties"]["rules"]["items"]["properties"];
  for (const auto& item : rule.items()) EXPECT_TRUE(rule_keys.contains(item.key())) << item.key();
  EXPECT_EQ(rule_keys.size(), rule.size());
}

TEST(Recipe, JsonGivesItBack) {
  for (const Recipe& recipe : recipes()) {
    const Result<Recipe> again = parse_recipe(recipe_json(recipe), "again");
    ASSERT_TRUE(again.ok()) << again.status().text();
    EXPECT_EQ(*again, recipe);
  }
}

TEST(Recipe, WhatItNeeds) {
  const std::set<std::string> without_data = {"max", "mse", "four_over_six", "mlp_only"};
  const std::set<std::string> with_head = {"nvidia", "compact", "best_head"};
  for (const Recipe& recipe : recipes()) {
    EXPECT_EQ(!recipe.needs_calibration(), without_data.contains(recipe.name)) << recipe.name;
    EXPECT_EQ(recipe.quantizes_head(), with_head.contains(recipe.name)) << recipe.name;
  }
  EXPECT_EQ(find_recipe("best")->effective_bits, 4.8);
  EXPECT_EQ(find_recipe("seeds-v1")->rules, uniform_recipe(Scales::max, Inputs::a4).rules);
}

TEST(Recipe, FaultsAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"3", "my.json: expected an object, got number"},
      {"{}", "my.json: rules: expected a list of 1 to 1024 rules, got none"},
      {R"({"rules": []})", "my.json: rules: expected a list of 1 to 1024 rules, got 0"},
      {R"({"rules": {}})", "my.json: rules: expected a list of 1 to 1024 rules, got object"},
      {R"({"rules": [1]})", "my.json: rule 1: expected an object, got number"},
      {R"({"rules": [{"match": "*"}]})", "my.json: rule 1: expected match and format, got less"},
      {R"({"rules": [{"match": "", "format": "fp8"}]})", "my.json: rule 1: expected match and format, got less"},
      {R"({"rules": [{"match": "*", "format": "fp4"}]})",
       "my.json: rule 1: format: expected one of nvfp4, fp8, fp8_channel, unchanged, got \"fp4\""},
      {R"({"rules": [{"match": 1, "format": "fp8"}]})", "my.json: rule 1: match: expected a text, got 1"},
      {R"({"rules": [{"match": "*", "format": "fp8", "act": "a8"}]})",
       "my.json: rule 1: expected a key among match, format, inputs, last_layers, got \"act\""},
      {R"({"rules": [{"match": "*", "format": "nvfp4", "inputs": "a8"}]})",
       "my.json: rule 1: inputs: expected a16, a4 with nvfp4, or a8 with fp8 and fp8_channel, got a8 with nvfp4"},
      {R"({"rules": [{"match": "*", "format": "nvfp4", "last_layers": 0}]})",
       "my.json: rule 1: last_layers: expected a whole number from 1 to 2147483647, got 0"},
      {R"({"rules": [{"match": "*", "format": "nvfp4", "last_layers": 18446744073709551615}]})",
       "my.json: rule 1: last_layers: expected a whole number from 1 to 2147483647, got 18446744073709551615"},
  };
  for (const auto& [text, message] : cases) {
    const Result<Recipe> recipe = parse_recipe(json_of(text), "my.json");
    ASSERT_FALSE(recipe.ok()) << text;
    EXPECT_EQ(recipe.status().code(), Code::corrupt);
    EXPECT_EQ(recipe.status().message(), message);
  }
  const std::pair<const char*, const char*> keys[] = {
      {R"("scales": "best")", "scales: expected one of max, four_over_six, mse, local_hessian, got \"best\""},
      {R"("transform": 1)", "transform: expected one of none, awq_lite, awq_clip, svdquant, got 1"},
      {R"("rounding": null)", "rounding: expected one of nearest, gptq, signround, got null"},
      {R"("damping": 2)", "damping: expected a number from 1e-09 to 1, got 2"},
      {R"("rank": 0.5)", "rank: expected a whole number from 1 to 1024, got 0.5"},
      {R"("fp8_kv": "yes")", "fp8_kv: expected true or false, got \"yes\""},
      {R"("effective_bits": 3)", "effective_bits: expected a number from 4.5 to 16, got 3"},
      {R"("title": ["a"])", "title: expected a text, got [\"a\"]"},
      {R"("bits": 4)",
       "expected a key among name, title, rules, scales, transform, rounding, act_order, damping, rank, fp8_kv, untie, "
       "effective_bits, got \"bits\""},
  };
  for (const auto& [key, message] : keys) {
    const std::string text = R"({"rules": [{"match": "*", "format": "nvfp4"}], )" + std::string(key) + "}";
    EXPECT_EQ(parse_recipe(json_of(text), "my.json").status().message(), "my.json: " + std::string(message));
  }
}

TEST(Recipe, FromAFileOrNot) {
  const test::TemporaryFolder folder;
  const Path file = folder.path() / "mine.json";
  ASSERT_TRUE(write_file(file, R"({"rules": [{"match": "mlp", "format": "fp8"}]})").ok());
  const Result<Recipe> mine = find_recipe(file.string());
  ASSERT_TRUE(mine.ok()) << mine.status().text();
  EXPECT_EQ(mine->name, "mine");
  EXPECT_EQ(mine->rules[0].format, Format::fp8);
  const Result<Recipe> none = find_recipe("bset");
  EXPECT_EQ(none.status().code(), Code::not_found);
  EXPECT_NE(none.status().message().find("best"), std::string::npos);
}

}  // namespace
}  // namespace nibble::quantize

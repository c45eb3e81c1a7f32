#include "synth/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "gate/json_schema.h"
#include "gate/recipe.h"
#include "synth/draw.h"
#include "synth/test_recipe.h"
#include "synth/validate.h"

namespace nibble::synth {
namespace {

TEST(Recipe, TheBundledOnesAreSound) {
  const std::vector<std::string> names = recipe_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()),
            (std::set<std::string>{"calibration", "companion", "small_world"}));
  for (const std::string& name : names) {
    const auto recipe = load_recipe(name);
    ASSERT_TRUE(recipe.ok()) << recipe.status().text();
    EXPECT_EQ(recipe->name, name);
    EXPECT_FALSE(recipe->title.empty());
    EXPECT_EQ(recipe->fingerprint.size(), 64U);
    EXPECT_TRUE(Validator::make(*recipe, {}, nullptr).ok());
  }
}

TEST(Recipe, TheBundledOnesFitTheSchema) {
  const Path folder = NIBBLE_SOURCE_DIR "/recipes/generate";
  const Json schema = parse_json(read_file(folder / "schema.json").value(), "schema.json").value();
  const auto compiled = gate::JsonSchema::compile(schema, "schema.json");
  ASSERT_TRUE(compiled.ok()) << compiled.status().text();
  EXPECT_EQ(compiled->unknown_keywords(), std::vector<std::string>{});
  for (const std::string& name : recipe_names()) {
    const Json recipe = parse_json(read_file(folder / (name + ".json")).value(), name).value();
    EXPECT_EQ(compiled->violation(recipe).value(), std::nullopt) << name;
  }
}

TEST(Recipe, TheQuotasAreThePromisedOnes) {
  const auto quotas = [](const std::string& name) {
    std::vector<std::pair<std::string, int64_t>> list;
    const Recipe recipe = load_recipe(name).value();
    for (const Category& one : recipe.categories) list.emplace_back(one.id, one.quota);
    return list;
  };
  using List = std::vector<std::pair<std::string, int64_t>>;
  EXPECT_EQ(quotas("companion"), (List{{"topic_switching", 200},
                                       {"direct_action", 200},
                                       {"concise_voice", 200},
                                       {"honest_memory", 100},
                                       {"user_context", 100},
                                       {"kannada_culture", 100},
                                       {"mixed", 100}}));
  EXPECT_EQ(quotas("calibration"),
            (List{{"greetings", 100}, {"factual", 100}, {"memory", 100}, {"web", 100}, {"five_turn", 100}}));
  EXPECT_GE(load_recipe("small_world")->quota(), 300);
}

// What the gates know their user by must not be trained.
TEST(Recipe, NobodyOfTheGatesIsAPersona) {
  const auto gates = gate::load_recipe("companion");
  ASSERT_TRUE(gates.ok()) << gates.status().text();
  const auto recipe = load_recipe("companion");
  for (const Json& persona : recipe->data.at("personas")) {
    EXPECT_NE(persona["user"], gates->persona.at("user"));
    EXPECT_NE(persona["city"], gates->persona.at("city"));
    EXPECT_NE(persona["work"], gates->persona.at("work"));
  }
  EXPECT_GE(recipe->data.at("personas").size(), 20U);
}

TEST(Recipe, SaysWhatIsWrong) {
  const Json good = Json::parse(R"({"kind": "write", "system": "You help {user}.", "prompt": "p", "repair": "r",
    "data": {"people": [{"user": "Meera"}]}, "persona": "people",
    "categories": [{"id": "a", "quota": 3, "brief": "b"}]})");
  ASSERT_TRUE(parse_recipe(good.dump(), "r.json").ok());
  const auto error = [&](const std::function<void(Json&)>& change) {
    Json bad = good;
    change(bad);
    const auto recipe = parse_recipe(bad.dump(), "r.json");
    return recipe.ok() ? "" : recipe.status().message();
  };
  EXPECT_NE(error([](Json& r) { r["colour"] = 1; }).find("got \"colour\""), std::string::npos);
  EXPECT_NE(error([](Json& r) { r.erase("prompt"); }).find("\"prompt\""), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["system"] = "You help {friend}."; }).find("{friend}"), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["persona"] = "crowd"; }).find("\"crowd\""), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["data"]["people"] = Json::array(); }).find("people"), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["categories"][0]["turns"] = {3, 1}; }).find("turns"), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["categories"].push_back(r["categories"][0]); }).find("a twice"), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["system"] = "@../secret.txt"; }).find("beside it"), std::string::npos);
  EXPECT_NE(error([](Json& r) { r["system"] = "@nowhere.txt"; }).find("nowhere.txt"), std::string::npos);
  EXPECT_NE(error([](Json& r) {
              r["rules"]["patterns"] = {{{"name", "x"}, {"must", "("}}};
            }).find("patterns[0]"),
            std::string::npos);
  EXPECT_EQ(load_recipe("nothing").status().code(), Code::not_found);
}

TEST(Recipe, TheFingerprintCoversItsFiles) {
  const std::string text = R"({"kind": "write", "system": "@s.txt", "prompt": "p", "repair": "r",
    "categories": [{"id": "a", "quota": 3, "brief": "b"}]})";
  const auto one = parse_recipe(text, "r.json", {{"s.txt", "one"}}),
             same = parse_recipe(text, "r.json", {{"s.txt", "one"}}),
             other = parse_recipe(text, "r.json", {{"s.txt", "two"}});
  ASSERT_TRUE(one.ok()) << one.status().text();
  EXPECT_EQ(one->system, "one");
  EXPECT_EQ(one->fingerprint, same->fingerprint);
  EXPECT_NE(one->fingerprint, other->fingerprint);
}

TEST(Draw, DependsOnSeedCategoryAndCellAlone) {
  const Recipe recipe = test::roll_recipe();
  const auto drawn = [&](uint64_t seed, const char* category, int64_t cell) {
    Words words;
    Rng rng = rng_of(recipe, seed, category, cell, "x");
    std::string all;
    for (int i = 0; i < 20; ++i) {
      draw_words(recipe, recipe.exchanges[0].draw, rng, words);
      all += words["person"] + words["topic"];
    }
    return all;
  };
  EXPECT_EQ(drawn(1, "a", 0), drawn(1, "a", 0));
  EXPECT_NE(drawn(1, "a", 0), drawn(2, "a", 0));
  EXPECT_NE(drawn(1, "a", 0), drawn(1, "b", 0));
  EXPECT_NE(drawn(1, "a", 0), drawn(1, "a", 1));
}

// The pairs of the bundled cases are held out, those of the bundled training data are not (hash_pair of its generator).
TEST(Draw, HeldOutPairsAreThoseOfTheSmallWorld) {
  int held = 0, all = 0;
  const auto recipe = load_recipe("small_world");
  for (const Json& person : recipe->data.at("person")) {
    for (const Json& topic : recipe->data.at("topic")) {
      ++all;
      held += held_out_pair(person.get<std::string>(), topic.get<std::string>()) ? 1 : 0;
    }
  }
  EXPECT_GT(held, all / 20);
  EXPECT_LT(held, all / 5);
}

TEST(Fill, ReplacesWordsAndNothingElse) {
  const Words words = {{"user", "Meera {city}"}, {"place.city", "Udupi"}};
  EXPECT_EQ(*fill("{user} in {place.city}, {\"a\": {}} {A} {", words), "Meera {city} in Udupi, {\"a\": {}} {A} {");
  EXPECT_EQ(fill("{who}", words).status().code(), Code::not_found);
  EXPECT_EQ(*fill_json(Json::parse(R"({"a": ["{user}", 3]})"), {{"user", "M"}}), Json::parse(R"({"a": ["M", 3]})"));
}

}  // namespace
}  // namespace nibble::synth

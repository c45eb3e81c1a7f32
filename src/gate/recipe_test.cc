#include "gate/recipe.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

TEST(BundledRecipes, AllOfThemLoad) {
  const std::vector<std::string> names = recipe_names();
  EXPECT_EQ(names, (std::vector<std::string>{"companion", "converse", "replace", "small_world"}));
  for (const std::string& name : names) {
    const auto recipe = load_recipe(name);
    ASSERT_TRUE(recipe.ok()) << recipe.status().text();
    EXPECT_EQ(recipe->name, name);
    EXPECT_EQ(recipe->hash.size(), 64u);
    for (const Case& one : recipe->cases) {
      EXPECT_FALSE(one.why.empty()) << one.id;
      for (const Turn& turn : one.turns) EXPECT_FALSE(turn.good.empty()) << one.id;
    }
  }
}

TEST(BundledRecipes, TheCompanionHasTheCasesThatItsGatesAskFor) {
  const Recipe recipe = load_recipe("companion").value();
  std::map<std::string, int64_t> cases, long_talks, noisy;
  for (const Case& one : recipe.cases) {
    for (const std::string& gate : one.gates) {
      ++cases[gate];
      long_talks[gate] += !one.history.empty();
      noisy[gate] += std::find(one.tags.begin(), one.tags.end(), "noisy") != one.tags.end();
    }
  }
  EXPECT_EQ(recipe.cases.size(), 411u);
  for (const Gate& gate : recipe.gates) {
    EXPECT_GE(cases[gate.id], gate.min_cases) << gate.id;
    if (gate.min_cases == 0) continue;
    EXPECT_GE(10 * long_talks[gate.id], cases[gate.id]) << gate.id;
    EXPECT_GE(10 * noisy[gate.id], cases[gate.id] - 10) << gate.id;
  }
  EXPECT_EQ(recipe.system.find('{'), std::string::npos);
  EXPECT_NE(recipe.system.find("Rajesh"), std::string::npos);
}

TEST(BundledRecipes, ConverseHolds31ConversationsIn8Categories) {
  const Recipe recipe = load_recipe("converse").value();
  std::map<std::string, int> categories;
  for (const Case& one : recipe.cases) ++categories[one.category];
  EXPECT_EQ(recipe.cases.size(), 31u);
  EXPECT_EQ(categories.size(), 8u);
  EXPECT_EQ(categories["mixed"], 3);
}

// What the schemas do not ask of a file only because the validator does not know the keyword.
const std::set<std::string> kNotChecked = {"propertyNames", "minProperties", "maxProperties"};

JsonSchema schema_of(const std::string& name) {
  const Path file = Path(NIBBLE_SOURCE_DIR "/recipes/gate") / name;
  auto schema = JsonSchema::compile(parse_json(read_file(file).value(), name).value(), name);
  EXPECT_TRUE(schema.ok()) << schema.status().text();
  for (const std::string& place : schema->unknown_keywords()) {
    EXPECT_TRUE(kNotChecked.contains(place.substr(place.rfind('/') + 1))) << place;
  }
  return std::move(schema).value();
}

TEST(BundledRecipes, TheirSchemasAcceptThem) {
  const JsonSchema recipes = schema_of("schema.json"), cases = schema_of("cases.schema.json");
  const auto wrong = [](const JsonSchema& schema, const Json& json) {
    return schema.violation(json).value().value_or("");
  };
  size_t seen = 0;
  for (const EmbeddedFile& file : recipe_files()) {
    const Path path(file.path);
    const bool is_cases = path.extension() == ".gate";
    const bool is_recipe = path.extension() == ".json" && !path.has_parent_path() && path != "tools.json";
    if (!is_cases && !is_recipe) continue;
    ++seen;
    Json json = parse_json(file.text, file.path, {.max_keys = 1 << 20}).value();
    const JsonSchema& schema = is_cases ? cases : recipes;
    EXPECT_EQ(wrong(schema, json), "") << file.path;
    json["casse"] = 1;
    EXPECT_NE(wrong(schema, json), "") << file.path;
  }
  EXPECT_EQ(seen, 4u + 13u + 8u);
  const Json good = parse_json(R"({"name": "n", "group": "g", "gates": ["g"], "cases": [
      {"id": "n.a", "why": "w", "turns": [{"user": "u", "expect": {"must": ["x"]}}]}]})",
                               "good")
                        .value();
  EXPECT_EQ(wrong(cases, good), "");
  Json bad = good;
  bad["cases"][0].erase("why");
  EXPECT_NE(wrong(cases, bad), "");
  bad = good;
  bad["cases"][0]["turns"][0]["expect"]["mustt"] = "x";
  EXPECT_NE(wrong(cases, bad), "");
}

constexpr const char* kRecipe = R"({"name": "r", "persona": {"user": "Asha"}, "system": "@prompt.txt",
  "gates": [{"id": "g", "metric": "rate", "op": ">=", "threshold": 1}], "cases": ["a.gate"]})";
constexpr const char* kCases = R"({"name": "a", "gates": ["g"], "defaults": {"tags": ["t"]}, "cases": [
  {"id": "a.1", "why": "w", "turns": [{"user": "I am {user}.", "expect": {"must": ["{user}"]}, "good": "Hello {user}."}]},
  {"id": "a.2", "why": "w", "category": "c", "system": "", "tags": [], "turns": [{"user": "Hi"}]}]})";

class RecipeTest : public ::testing::Test {
 protected:
  RecipeTest() {
    folder_.write("r.json", kRecipe);
    folder_.write("a.gate", kCases);
    folder_.write("prompt.txt", "You talk to {user}. {\"a\": 1}");
  }
  Result<Recipe> load(const std::string& name = "r.json") { return load_recipe((folder_ / name).string()); }

  test::TemporaryFolder folder_;
};

TEST_F(RecipeTest, FillsInWhatCasesLeaveOut) {
  const auto recipe = load();
  ASSERT_TRUE(recipe.ok()) << recipe.status().text();
  ASSERT_EQ(recipe->cases.size(), 2u);
  const Case &first = recipe->cases[0], &second = recipe->cases[1];
  EXPECT_EQ(first.system, "You talk to Asha. {\"a\": 1}");
  EXPECT_EQ(first.category, "a");
  EXPECT_EQ(first.tags, std::vector<std::string>{"t"});
  EXPECT_EQ(first.gates, std::vector<std::string>{"g"});
  EXPECT_EQ(first.turns[0].user, "I am Asha.");
  EXPECT_EQ(first.turns[0].expect.must[0].text, "Asha");
  EXPECT_EQ(first.turns[0].good[0].text, "Hello Asha.");
  EXPECT_EQ(second.system, "");
  EXPECT_EQ(second.category, "c");
  EXPECT_TRUE(second.tags.empty());
}

TEST_F(RecipeTest, ExtendsAnother) {
  folder_.write("s.json", R"({"extends": "r", "persona": {"user": "Ravi"}, "gates": [
    {"id": "g", "metric": "rate", "op": ">=", "threshold": 0},
    {"id": "h", "metric": "rate", "op": ">=", "threshold": 1}]})");
  const auto recipe = load("s.json");
  ASSERT_TRUE(recipe.ok()) << recipe.status().text();
  EXPECT_EQ(recipe->cases[0].turns[0].user, "I am Ravi.");
  ASSERT_EQ(recipe->gates.size(), 2u);
  EXPECT_EQ(recipe->gates[0].threshold, 0);
  EXPECT_TRUE(recipe->gates[0].report_only);
  EXPECT_FALSE(recipe->gates[1].report_only);
  EXPECT_NE(recipe->hash, load()->hash);
  folder_.write("t.json", R"({"extends": "s", "gates": [{"id": "h", "off": true}]})");
  EXPECT_EQ(load("t.json")->gates.size(), 1u);
  folder_.write("loop.json", R"({"extends": "loop"})");
  EXPECT_EQ(load("loop.json").status().code(), Code::corrupt);
}

TEST_F(RecipeTest, SaysWhatIsWrong) {
  const auto error = [&](const std::string& from, const std::string& to) {
    std::string cases = kCases;
    const size_t at = cases.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    folder_.write("a.gate", cases.replace(at, from.size(), to));
    return load().status().message();
  };
  EXPECT_EQ(error("\"must\"", "\"mustt\"").substr(0, 60),
            "a.gate: a.1: turn 1: expect: expected a key among must, must");
  EXPECT_EQ(error("{\"must\"", "{\"detectors\": [\"mdd\"], \"must\""),
            "a.gate: a.1: turn 1: expect: detectors: expected the name of one, got \"mdd\"");
  EXPECT_EQ(error("{user}.\",", "{usr}.\","), "a.gate: expected a word of the persona (user), got {usr}");
  EXPECT_EQ(error("a.2", "a.1"), "r: expected ids that differ, got a.1 twice");
  EXPECT_EQ(error("[\"g\"]", "[\"x\"]"), "a.1: gates: expected a gate of r, got x");
  EXPECT_EQ(error("\"why\": \"w\", \"turns\"", "\"turns\""), "a.gate: a.1: expected the key \"why\", got none");
  EXPECT_EQ(error("[\"{user}\"]", "[{\"~\": \"(\"}]").substr(0, 32), "a.gate: a.1: turn 1: expect: mus");
  EXPECT_EQ(error("\"id\": \"a.1\"", "\"id\": \"a.1\", \"history\": \"x\"").substr(0, 15), "history/x.json:");
  EXPECT_EQ(error("{\"tags\": [\"t\"]}", "[]"), "a.gate: defaults: expected an object, got array");
  folder_.write("list.json", "[]");
  folder_.write("of_list.json", R"({"extends": "list", "name": "x"})");
  EXPECT_EQ(load("list.json").status().message(), "list.json: expected an object, got array");
  EXPECT_EQ(load("of_list.json").status().message(), "list.json: expected an object, got array");
  folder_.write("r.json", R"({"gates": [], "cases": ["../a.gate"]})");
  EXPECT_EQ(load().status().code(), Code::corrupt);
  EXPECT_EQ(load_recipe("nothing").status().code(), Code::not_found);
  EXPECT_EQ(load_recipe("nothing.json").status().code(), Code::not_found);
}

}  // namespace
}  // namespace nibble::gate

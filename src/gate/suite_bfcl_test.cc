#include <gtest/gtest.h>

#include "gate/bfcl_tools.h"
#include "gate/runner.h"
#include "gate/suite.h"
#include "tests/support/replay_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

const Path kFolder = NIBBLE_SOURCE_DIR "/tests/suites/bfcl";

const Case& case_of(const Suite& suite, const std::string& id) {
  const auto& cases = suite.recipe.cases;
  const auto found = std::find_if(cases.begin(), cases.end(), [&](const Case& one) { return one.id == id; });
  NIBBLE_CHECK(found != cases.end());
  return *found;
}

std::string verdict(const Case& one, const std::vector<ToolCall>& calls) {
  const auto mismatch = one.turns[0].expect.call->mismatch(calls);
  EXPECT_TRUE(mismatch.ok()) << mismatch.status().text();
  return *mismatch ? name((*mismatch)->fault) : "right";
}

TEST(SuiteBfcl, ReadsQuestionsToolsAndAnswers) {
  const auto suite = load_suite("bfcl", kFolder, false);
  ASSERT_TRUE(suite.ok()) << suite.status().text();
  EXPECT_EQ(suite->recipe.cases.size(), 6);
  const Case& walk = case_of(*suite, "simple_python_0");
  EXPECT_EQ(walk.category, "simple_python");
  EXPECT_EQ(walk.gates, (std::vector<std::string>{"tool_calling"}));
  EXPECT_EQ(walk.turns[0].user, "How far is a walk of 3 hours at 4.5 km/h?");
  EXPECT_TRUE(walk.turns[0].one_reply);
  const Json& function = walk.tools[0]["function"];
  EXPECT_EQ(walk.tools[0]["type"], "function");
  EXPECT_EQ(function["name"], "walk_distance");
  EXPECT_EQ(function["parameters"]["type"], "object");
  EXPECT_EQ(function["parameters"]["properties"]["speed"]["type"], "number");
  EXPECT_EQ(function["parameters"]["properties"]["stops"]["type"], "array");
  EXPECT_EQ(function["parameters"]["properties"]["stops"]["items"]["type"], "number");
  EXPECT_EQ(verdict(walk, {{"", "walk_distance", R"({"hours": 3, "speed": 4.5})"}}), "right");
  EXPECT_EQ(verdict(walk, {{"", "walk_distance", R"({"hours": 3, "speed": 5})"}}), "value");
  EXPECT_EQ(verdict(walk, {{"", "walk_distance", R"({"hours": "3", "speed": 4.5})"}}), "type");

  const Case& table = case_of(*suite, "simple_python_1");
  EXPECT_EQ(table.system, "You book tables.");
  ASSERT_EQ(table.history.size(), 2);
  EXPECT_EQ(table.history[1]["content"], "Hello. For how many?");
  EXPECT_EQ(table.turns[0].user, "A table for 4 in Mysuru, please.");
  // A parameter that is called "type" is no type.
  EXPECT_EQ(table.tools[0]["function"]["parameters"]["properties"]["type"]["type"], "string");
  EXPECT_EQ(verdict(table, {{"", "book_table", R"({"people": 4, "place": {"city": "mysuru"}})"}}), "right");
}

TEST(SuiteBfcl, JavaIsSentAndComparedAsText) {
  const auto suite = load_suite("bfcl", kFolder, false);
  ASSERT_TRUE(suite.ok());
  const Case& sort = case_of(*suite, "simple_java_0");
  const Json& properties = sort.tools[0]["function"]["parameters"]["properties"];
  EXPECT_EQ(properties["list"]["type"], "string");
  EXPECT_EQ(properties["list"]["description"],
            "What to sort. (Java source text of type ArrayList with elements of type long)");
  EXPECT_EQ(properties["down"]["description"], "(Java source text of type boolean)");
  EXPECT_EQ(properties["seed"]["description"], "(Java source text)");
  EXPECT_EQ(verdict(sort, {{"", "Lists_sort", R"({"list": "scores", "down": "true"})"}}), "right");
  EXPECT_EQ(verdict(sort, {{"", "Lists_sort", R"({"list": "scores", "down": "false"})"}}), "value");
}

TEST(SuiteBfcl, SaysWhatIsThereAndWhatIsSkipped) {
  const auto suite = load_suite("bfcl", kFolder, false);
  ASSERT_TRUE(suite.ok());
  std::string about;
  for (const std::string& line : suite->about) about += line + "\n";
  EXPECT_NE(about.find("warning: simple_python: 2 loaded, 400 are published"), std::string::npos) << about;
  EXPECT_NE(about.find("not there: simple_javascript, multiple, parallel, live_simple"), std::string::npos) << about;
  EXPECT_NE(about.find("simulated programs: multi_turn_base\n"), std::string::npos) << about;
  EXPECT_NE(about.find("bfcl: 6 cases, scorer version 1"), std::string::npos) << about;
}

// Through a whole server: the calls of a turn are those of its first message, and no tool answers.
TEST(SuiteBfcl, IsPlayedAgainstAServer) {
  const auto suite = load_suite("bfcl", kFolder, false);
  ASSERT_TRUE(suite.ok());
  const auto entry = [](const char* contains, const std::vector<std::string>& calls, const char* words = "") {
    std::string text = words;
    for (const std::string& call : calls) text += "<tool_call>\n" + call + "\n</tool_call>\n";
    return Json({{"match", {{"contains", {contains}}}}, {"chunks", {{{"text", text}}}}}).dump() + "\n";
  };
  const std::string script =
      entry("How far", {R"({"name": "walk_distance", "arguments": {"hours": 3, "speed": 4.5, "unit": "KM"}})"}) +
      entry("A table", {R"({"name": "book_table", "arguments": {"people": 2, "place": {"city": "Mysuru"}}})"}) +
      entry("Sort the list", {R"({"name": "Lists_sort", "arguments": {"list": "scores", "down": "true"}})"}) +
      entry("Water the ferns", {R"({"name": "lamp", "arguments": {"on": false}})",
                                R"({"name": "water", "arguments": {"plants": "the roses"}})",
                                R"({"name": "water", "arguments": {"plants": "Ferns"}})"}) +
      entry("Who painted", {}, "That would be Michelangelo.") +
      entry("Is it wet", {R"({"name": "weather", "arguments": {"city": "Udupi"}})"});
  const test::ReplayServer server(script);
  Side side;
  side.endpoint.url = server.url();
  const auto records = play_recipe(suite->recipe, side, {.jobs = 2});
  ASSERT_TRUE(records.ok()) << records.status().text();
  const Report report = report_of(suite->recipe, *records, {}).value();
  ASSERT_EQ(report.gates.size(), 2);
  EXPECT_EQ(report.gates[0].k, 4);
  EXPECT_EQ(report.gates[0].n, 5);
  EXPECT_EQ(report.gates[0].failures, (std::vector<std::string>{"simple_python_1"}));
  EXPECT_EQ(report.gates[1].k, 1);
  EXPECT_EQ(report.gates[1].n, 1);
  EXPECT_EQ(report.errors, 0);
  EXPECT_EQ(report.categories.size(), 5);
  for (const Case& one : suite->recipe.cases) {
    EXPECT_EQ(records->get(one.id, 1)->turns[0].messages.size(), 1) << one.id;
  }
}

TEST(SuiteBfcl, BadFilesAreErrorsOfOneLine) {
  const std::string question =
      R"({"id": "simple_python_0", "question": [[{"role": "user", "content": "a"}]], "function": [{"name": "f", )"
      R"("parameters": {"type": "dict", "properties": {"x": {"type": "integer"}}, "required": []}}]})";
  struct Row {
    std::string asked, answer;
    const char* message;
  };
  const std::string right = R"({"id": "simple_python_0", "ground_truth": [{"f": {"x": [1]}}]})";
  const Row rows[] = {
      {question, R"({"id": "simple_python_1", "ground_truth": [{"f": {"x": [1]}}]})",
       "BFCL_v4_simple_python.json: line 1: expected a possible answer to simple_python_0, got none"},
      {question, right.substr(0, 40), "possible_answer/BFCL_v4_simple_python.json: line 1"},
      {question, right + "\n" + right, "possible_answer/BFCL_v4_simple_python.json: line 2: expected one answer"},
      {question, R"({"id": "simple_python_0", "ground_truth": {}})",
       "possible_answer/BFCL_v4_simple_python.json: line 1: ground_truth: expected a list"},
      {question, R"({"id": "simple_python_0", "ground_truth": [5]})", "simple_python_0: ground_truth"},
      {question, R"({"id": "simple_python_0", "ground_truth": [{"g": {}}]})", "simple_python_0: ground_truth"},
      {R"({"id": 5})", right, "BFCL_v4_simple_python.json: line 1: id: expected a text"},
      {R"({"id": "a", "question": [[], []]})", right,
       "BFCL_v4_simple_python.json: line 1: question: expected one list"},
      {R"({"id": "a", "question": [[5]]})", right, "BFCL_v4_simple_python.json: line 1: question[0][0]: role"},
      {R"({"id": "a", "question": [[{"role": "assistant", "content": "x"}]]})", right,
       "BFCL_v4_simple_python.json: line 1: question[0][0]: role: expected user"},
      {R"({"id": "a", "question": [[{"role": "user", "content": "x"}]], "function": {}})", right,
       "BFCL_v4_simple_python.json: line 1: function: expected a list"},
      {R"({"id": "a", "question": [[{"role": "user", "content": "x"}]], "function": [{"name": "a b"}]})", right,
       "BFCL_v4_simple_python.json: line 1: function[0]: name: expected"},
      {R"({"id": "a", "question": [[{"role": "user", "content": "x"}]], "function": [{"name": "a"}]})", right,
       "BFCL_v4_simple_python.json: line 1: function[0]: parameters: expected an object"},
  };
  for (const Row& row : rows) {
    const test::TemporaryFolder folder;
    std::filesystem::create_directory(folder / "possible_answer");
    folder.write("BFCL_v4_simple_python.json", row.asked);
    folder.write("possible_answer/BFCL_v4_simple_python.json", row.answer);
    const auto suite = load_suite("bfcl", folder.path(), true);
    ASSERT_FALSE(suite.ok()) << row.asked << row.answer;
    EXPECT_EQ(suite.status().code(), Code::corrupt);
    EXPECT_TRUE(suite.status().message().starts_with(row.message)) << suite.status().text();
    EXPECT_EQ(suite.status().message().find('\n'), std::string::npos);
  }
  const test::TemporaryFolder folder;
  EXPECT_EQ(load_suite("bfcl", folder.path(), true).status().code(), Code::not_found);
  folder.write("BFCL_v4_simple_python.json", question);
  const auto unanswered = load_suite("bfcl", folder.path(), true);
  EXPECT_EQ(unanswered.status().code(), Code::not_found);
  EXPECT_TRUE(unanswered.status().message().starts_with("bfcl: expected the answers possible_answer/BFCL_v4_"));
}

TEST(SuiteBfcl, TypeWordsOfAllLanguages) {
  const Json functions = parse_json(R"([{"name": "a.b", "parameters": {"type": "dict", "properties": {
      "h": {"type": "HashMap", "additionalProperties": {"type": "long"}}, "n": {"type": "Frob"}, "e": {"type": ""},
      "deep": {"type": "dict", "properties": {"type": {"type": "char"}}}}}}])",
                                    "test")
                             .value();
  const auto tools = openai_tools(functions, "", "test");
  ASSERT_TRUE(tools.ok()) << tools.status().text();
  const Json& properties = (*tools)[0]["function"]["parameters"]["properties"];
  EXPECT_EQ(properties["h"]["type"], "object");
  EXPECT_EQ(properties["h"]["additionalProperties"]["type"], "integer");
  EXPECT_FALSE(properties["n"].contains("type"));
  EXPECT_FALSE(properties["e"].contains("type"));
  EXPECT_EQ(properties["deep"]["properties"]["type"]["type"], "string");
}

}  // namespace
}  // namespace nibble::gate

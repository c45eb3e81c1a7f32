#include "gate/suite.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "gate/runner.h"
#include "tests/support/chat_server.h"
#include "tests/support/temporary_folder.h"

namespace nibble::gate {
namespace {

const Path kSuites = NIBBLE_SOURCE_DIR "/tests/suites";

const GateResult& gate_of(const Report& report, const std::string& id) {
  const auto found =
      std::find_if(report.gates.begin(), report.gates.end(), [&](const GateResult& g) { return g.gate.id == id; });
  NIBBLE_CHECK(found != report.gates.end());
  return *found;
}

// What a model reaches that answers the last message of the user so.
Report play(const Suite& suite, const std::map<std::string, std::string>& replies, int repeats = 1) {
  const test::ChatServer server([&](const Json& messages) {
    return Reply{.content = replies.at(messages.back()["content"].get<std::string>())};
  });
  Side side;
  side.endpoint.url = server.url();
  side.endpoint.model = "scripted";
  const RunOptions options{.repeats = repeats};
  auto records = play_recipe(suite.recipe, side, options);
  EXPECT_TRUE(records.ok()) << records.status().text();
  return report_of(suite.recipe, *records, {.repeats = repeats}).value();
}

bool says(const Suite& suite, std::string_view words) {
  return std::any_of(suite.about.begin(), suite.about.end(),
                     [&](const std::string& line) { return line.find(words) != std::string::npos; });
}

TEST(Suite, Gsm8kIsPlayedAndScored) {
  const auto suite = load_suite("gsm8k", kSuites / "gsm8k", false);
  ASSERT_TRUE(suite.ok()) << suite.status().text();
  ASSERT_EQ(suite->recipe.cases.size(), 3);
  EXPECT_EQ(suite->recipe.cases[0].turns[0].expect.last_number, "24");
  EXPECT_EQ(suite->recipe.cases[1].turns[0].expect.last_number, "1120");
  EXPECT_EQ(suite->recipe.cases[2].turns[0].expect.last_number, "-7.5");
  EXPECT_TRUE(says(*suite, "published as MIT, licence file LICENSE"));
  EXPECT_TRUE(says(*suite, "warning: gsm8k: 3 loaded, 1319 are published"));
  std::map<std::string, std::string> replies;
  const char* said[] = {"4 times 6 is **24**.", "It sells $1,120.00 worth.", "It loses 7.5 litres."};
  for (size_t i = 0; i < 3; ++i) replies[suite->recipe.cases[i].turns[0].user] = said[i];
  const Report report = play(*suite, replies);
  const GateResult& reasoning = gate_of(report, "reasoning");
  EXPECT_EQ(reasoning.k, 2);
  EXPECT_EQ(reasoning.n, 3);
  EXPECT_EQ(reasoning.failures, (std::vector<std::string>{"gsm8k_3"}));
  EXPECT_EQ(report.exit_code(), 0);  // a benchmark only reports
}

TEST(Suite, IfevalCountsPromptsAndInstructionsStrictlyAndLoosely) {
  const auto suite = load_suite("ifeval", kSuites / "ifeval", false);
  ASSERT_TRUE(suite.ok()) << suite.status().text();
  ASSERT_EQ(suite->recipe.cases.size(), 3);
  EXPECT_EQ(suite->recipe.cases[0].id, "ifeval_11");
  EXPECT_EQ(suite->recipe.cases[1].category, "3 instructions");
  EXPECT_EQ(suite->recipe.cases[1].tags[1], "keywords:existence");
  std::map<std::string, std::string> replies;
  const std::string letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z";
  // Followed; JSON loosely, leaf strictly, too many words; not followed.
  const std::string said[] = {"A lake lies still. Rain wakes it.",
                              "Sure: " + letters + "\n{\"tea\": \"leaf\", \"is\": \"" + letters + "\"}", "Good night."};
  for (size_t i = 0; i < 3; ++i) replies[suite->recipe.cases[i].turns[0].user] = said[i];
  using Counts = std::pair<int64_t, int64_t>;
  for (const int repeats : {1, 2}) {
    const Report report = play(*suite, replies, repeats);
    const auto counts = [&](const char* id) {
      const GateResult& gate = gate_of(report, id);
      return Counts(gate.k, gate.n);
    };
    EXPECT_EQ(counts("ifeval_prompt_strict"), Counts(1 * repeats, 3 * repeats));
    EXPECT_EQ(counts("ifeval_prompt_loose"), Counts(1 * repeats, 3 * repeats));
    EXPECT_EQ(counts("ifeval_instruction_strict"), Counts(2 * repeats, 5 * repeats));
    EXPECT_EQ(counts("ifeval_instruction_loose"), Counts(3 * repeats, 5 * repeats));
    EXPECT_EQ(gate_of(report, "ifeval_instruction_loose").failures,
              (std::vector<std::string>{"ifeval_12", "ifeval_13"}));
    EXPECT_EQ(report.exit_code(), 0);
  }
  replies[suite->recipe.cases[1].turns[0].user] = "Sure:\n{\"tea\": \"leaf\"}";
  const Report report = play(*suite, replies);
  EXPECT_EQ(gate_of(report, "ifeval_prompt_strict").k, 1);
  EXPECT_EQ(gate_of(report, "ifeval_prompt_loose").k, 2);
}

TEST(Suite, WhatWasNotPlayedIsNotFollowed) {
  const auto suite = load_suite("ifeval", kSuites / "ifeval", false);
  ASSERT_TRUE(suite.ok());
  const Report report = report_of(suite->recipe, Records(), {}).value();
  for (const char* id : {"ifeval_prompt_strict", "ifeval_prompt_loose"}) EXPECT_EQ(gate_of(report, id).n, 3);
  for (const char* id : {"ifeval_instruction_strict", "ifeval_instruction_loose"}) EXPECT_EQ(gate_of(report, id).n, 5);
  for (const GateResult& gate : report.gates) EXPECT_EQ(gate.k, 0);
}

TEST(Suite, NeedsALicenceOrARight) {
  const test::TemporaryFolder folder;
  folder.write("test.jsonl", R"({"question": "1+1?", "answer": "#### 2"})");
  const auto refused = load_suite("gsm8k", folder.path(), false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::invalid_argument);
  EXPECT_NE(refused.status().hint().find("--i-have-rights"), std::string::npos);
  const auto allowed = load_suite("gsm8k", folder.path(), true);
  ASSERT_TRUE(allowed.ok()) << allowed.status().text();
  EXPECT_TRUE(says(*allowed, "no licence file"));
  for (const char* name : {"COPYING", "License.md"}) {
    const Path file = folder.write(name, "x");
    EXPECT_TRUE(load_suite("gsm8k", folder.path(), false).ok()) << name;
    std::filesystem::remove(file);
  }
}

TEST(Suite, HashesWhatItIsMadeOf) {
  const test::TemporaryFolder folder;
  const auto hash = [&](const char* question) {
    folder.write("test.jsonl", fmt::format(R"({{"question": "{}", "answer": "#### 2"}})", question));
    return load_suite("gsm8k", folder.path(), true)->recipe.hash;
  };
  EXPECT_EQ(hash("1+1?"), hash("1+1?"));
  EXPECT_NE(hash("1+1?"), hash("2+0?"));
}

TEST(Suite, BadFilesAreErrorsOfOneLine) {
  struct Row {
    const char* suite;
    const char* file;
    const char* text;
    const char* message;
  };
  const Row rows[] = {
      {"gsm8k", "test.jsonl", "", "gsm8k: expected a case to play, got none"},
      {"gsm8k", "test.jsonl", "{\"question\": \"a\", \"answer\": \"####", "test.jsonl: line 1"},
      {"gsm8k", "test.jsonl", "[1]", "test.jsonl: line 1: expected an object, got array"},
      {"gsm8k", "test.jsonl", R"({"answer": "#### 2"})", "test.jsonl: line 1: question: expected a text, got null"},
      {"gsm8k", "test.jsonl", "\n{\"question\": \"a\", \"answer\": \"2\"}",
       "test.jsonl: line 2: answer: expected a number behind the last ####, got none"},
      {"gsm8k", "test.jsonl", R"({"question": "a", "answer": "#### two"})", "test.jsonl: line 1: answer"},
      {"gsm8k", "other.jsonl", "", "gsm8k: expected test.jsonl or gsm8k_test.jsonl or gsm8k.jsonl in "},
      {"ifeval", "input_data.jsonl", R"({"key": 1.5})", "input_data.jsonl: line 1: key: expected a whole number"},
      {"ifeval", "input_data.jsonl", R"({"key": 1, "prompt": 5})", "input_data.jsonl: line 1: prompt: expected a text"},
      {"ifeval", "input_data.jsonl", R"({"key": 1, "prompt": "a", "instruction_id_list": "x"})",
       "input_data.jsonl: line 1: instruction_id_list: expected a list"},
      {"ifeval", "input_data.jsonl", R"({"key": 1, "prompt": "a", "instruction_id_list": ["x"], "kwargs": []})",
       "input_data.jsonl: line 1: expected as many kwargs as instructions"},
      {"ifeval", "input_data.jsonl", R"({"key": 1, "prompt": "a", "instruction_id_list": [5], "kwargs": [{}]})",
       "input_data.jsonl: line 1: instruction_id_list: expected texts"},
      {"ifeval", "input_data.jsonl", R"({"key": 1, "prompt": "a", "instruction_id_list": ["x:y"], "kwargs": [{}]})",
       "input_data.jsonl: line 1: expected one of the 25 types of instructions, got \"x:y\""},
      {"ifeval", "input_data.jsonl",
       "{\"key\": 1, \"prompt\": \"a\", \"instruction_id_list\": [\"startend:quotation\"], \"kwargs\": [{}]}\n"
       "{\"key\": 1, \"prompt\": \"b\", \"instruction_id_list\": [\"startend:quotation\"], \"kwargs\": [{}]}",
       "input_data.jsonl: line 2: expected an id of its own, got \"ifeval_1\" again"},
      {"mmlu", "x", "", "suite: expected one of bfcl, gsm8k, ifeval, got \"mmlu\""},
  };
  for (const Row& row : rows) {
    const test::TemporaryFolder folder;
    folder.write(row.file, row.text);
    const auto suite = load_suite(row.suite, folder.path(), true);
    ASSERT_FALSE(suite.ok()) << row.text;
    EXPECT_TRUE(suite.status().message().starts_with(row.message)) << suite.status().text();
    EXPECT_EQ(suite.status().message().find('\n'), std::string::npos);
  }
  EXPECT_EQ(load_suite("gsm8k", "/nowhere/at/all", true).status().code(), Code::not_found);
}

}  // namespace
}  // namespace nibble::gate

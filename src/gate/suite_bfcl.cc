// The Berkeley Function Calling Leaderboard, version 4 (gorilla, bfcl_eval/data). BFCL_v4_<category>.json has a line a
// question, {"id", "question": [[messages]], "function": [definitions]}; possible_answer/ of the same name has its
// calls,
// {"id", "ground_truth": [{function: {parameter: [allowed]}}]}. Irrelevance wants no call, relevance any.
#include <algorithm>
#include <map>

#include "gate/bfcl_tools.h"
#include "gate/chat_stream.h"
#include "gate/suite_loader.h"

namespace nibble::gate {
namespace {

enum class Wanted : uint8_t { calls, any, none };

struct Category {
  const char* name;
  size_t published;
  Wanted wanted = Wanted::calls;
  const char* language = "";  // whose source text the values are
};

constexpr Category kCategories[] = {
    {"simple_python", 400},
    {"simple_java", 100, Wanted::calls, "Java"},
    {"simple_javascript", 50, Wanted::calls, "JavaScript"},
    {"multiple", 200},
    {"parallel", 200},
    {"parallel_multiple", 200},
    {"irrelevance", 240, Wanted::none},
    {"live_simple", 258},
    {"live_multiple", 1053},
    {"live_parallel", 16},
    {"live_parallel_multiple", 24},
    {"live_irrelevance", 884, Wanted::none},
    {"live_relevance", 16, Wanted::any},
};

// They need the benchmark's simulated programs.
constexpr const char* kSkipped[] = {
    "multi_turn_base", "multi_turn_long_context", "multi_turn_miss_func", "multi_turn_miss_param", "memory",
    "web_search",      "format_sensitivity"};

std::string file_of(const char* category) {
  return fmt::format("BFCL_v4_{}.json", category);
}

using Answers = std::map<std::string, Json, std::less<>>;

Result<Answers> read_answers(SuiteLoader& loader, const Category& category) {
  Answers answers;
  if (category.wanted != Wanted::calls) return answers;
  const std::string file = "possible_answer/" + file_of(category.name);
  if (!loader.has(file)) {
    return not_found("bfcl: expected the answers {}, got none", file)
        .with_hint("copy the folder bfcl_eval/data as it is, with possible_answer in it");
  }
  NIBBLE_RETURN_IF_ERROR(loader.for_each_object(file, [&](const Json& object, const std::string& where) -> Status {
    NIBBLE_TRY(id, text_member(object, "id", where));
    NIBBLE_TRY(calls, list_member(object, "ground_truth", where));
    if (!answers.emplace(id, *calls).second) return corrupt("{}: expected one answer to {}, got two", where, id);
    return {};
  }));
  return answers;
}

// The messages of the one turn: what leads to the last, which is the user's.
Status read_messages(const Json& object, Case& one, const std::string& where) {
  NIBBLE_TRY(turns, list_member(object, "question", where));
  if (turns->size() != 1 || !(*turns)[0].is_array() || (*turns)[0].empty()) {
    return corrupt("{}: question: expected one list of messages, got {}", where, turns->size());
  }
  const Json& messages = (*turns)[0];
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string at = fmt::format("{}: question[0][{}]", where, i);
    NIBBLE_TRY(role, text_member(messages[i], "role", at));
    NIBBLE_TRY(content, text_member(messages[i], "content", at));
    const bool last = i + 1 == messages.size();
    if (last ? role != "user" : role != "user" && role != "assistant" && role != "system") {
      return corrupt("{}: role: expected {}, got \"{}\"", at, last ? "user in the last message" : "one of a chat",
                     role);
    }
    if (i == 0 && role == "system") {
      one.system = content;
    } else if (!last) {
      one.history.push_back({{"role", role}, {"content", content}});
    } else {
      one.turns.emplace_back().user = content;
    }
  }
  return {};
}

Result<Case> read_question(const Json& object, const Category& category, const Answers& answers,
                           const std::string& where) {
  Case one;
  one.category = category.name;
  one.gates = {category.wanted == Wanted::none ? "tool_restraint" : "tool_calling"};
  NIBBLE_TRY(id, text_member(object, "id", where));
  one.id = id;
  NIBBLE_RETURN_IF_ERROR(read_messages(object, one, where));
  NIBBLE_TRY(functions, list_member(object, "function", where));
  NIBBLE_TRY(tools, openai_tools(*functions, category.language, where));
  one.tools = std::move(tools);
  Turn& turn = one.turns.back();
  turn.one_reply = true;
  if (category.wanted == Wanted::none) turn.expect.call = CallExpectation::none();
  if (category.wanted == Wanted::any) turn.expect.call = CallExpectation::some();
  if (category.wanted != Wanted::calls) return one;
  const auto answer = answers.find(one.id);
  if (answer == answers.end()) return corrupt("{}: expected a possible answer to {}, got none", where, one.id);
  const CallRules rules{.values_as_text = *category.language != '\0', .unmeetable = true};
  NIBBLE_TRY(calls, CallExpectation::all_of(answer->second, one.tools, one.id + ": ground_truth", rules));
  turn.expect.call = std::move(calls);
  return one;
}

}  // namespace

Status load_bfcl(SuiteLoader& loader) {
  for (const char* gate : {"tool_calling", "tool_restraint"}) loader.add_gate(gate);
  std::vector<std::string> absent, skipped;
  for (const Category& category : kCategories) {
    const std::string file = file_of(category.name);
    if (!loader.has(file)) {
      absent.emplace_back(category.name);
      continue;
    }
    NIBBLE_TRY(answers, read_answers(loader, category));
    size_t count = 0;
    NIBBLE_RETURN_IF_ERROR(loader.for_each_object(file, [&](const Json& object, const std::string& where) -> Status {
      NIBBLE_TRY(one, read_question(object, category, answers, where));
      ++count;
      return loader.add_case(std::move(one), where);
    }));
    loader.compare_count(category.name, count, category.published);
  }
  if (absent.size() == std::size(kCategories)) {
    return not_found("bfcl: expected BFCL_v4_simple_python.json or another category, got none")
        .with_hint("--data takes the folder bfcl_eval/data of version 4");
  }
  if (!absent.empty()) loader.say(fmt::format("not there: {}", fmt::join(absent, ", ")));
  for (const char* name : kSkipped) {
    if (loader.has(file_of(name))) skipped.emplace_back(name);
  }
  if (!skipped.empty()) {
    loader.say(fmt::format("skipped, they need the benchmark's simulated programs: {}", fmt::join(skipped, ", ")));
  }
  return {};
}

}  // namespace nibble::gate

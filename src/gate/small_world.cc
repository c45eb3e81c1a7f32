#include <set>

#include "gate/chat_stream.h"
#include "gate/recipe.h"
#include "io/jsonl.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxLineBytes = size_t{4} << 20;

// An argument to look for: a number or a boolean as JSON writes it; a string as it stands inside its quotes there.
void read_words(ObjectReader& reader, std::vector<std::string>& words) {
  const Json* list = reader.value("args");
  if (list == nullptr) return;
  if (!list->is_array()) return reader.expected_of("args", "a list", *list);
  for (const Json& item : *list) {
    if (item.is_structured() || item.is_null()) {
      return reader.expected_of("args", "strings, numbers or booleans", item);
    }
    const std::string text = item.dump();
    words.push_back(item.is_string() ? text.substr(1, text.size() - 2) : text);
  }
}

// Of `expect`, whatever else the turn holds: an expectation that is not understood would count as met.
Result<Expectation> read_expectation(const Json& json, size_t results, const std::string& where) {
  ObjectReader reader(json, where);
  Expectation expect;
  CallSteps steps;
  steps.count = results;
  reader.require("must");
  if (const Json* must = reader.value("must")) {
    if (!must->is_array()) reader.expected_of("must", "a list of texts", *must);
    for (const Json& text : *must) {
      if (!text.is_string()) reader.expected_of("must", "a list of texts", *must);
      auto pattern = TextPattern::parse(text, where + ": must");
      if (!pattern.ok()) return pattern.status();
      expect.must.push_back(std::move(pattern).value());
    }
  }
  for (const char* key : {"tool", "args"}) {
    if (results > 0) reader.require(key);
    if (results == 0 && reader.has(key)) {
      reader.fail(corrupt("{}: expected no tool in a turn without tool_results, got one", where));
    }
  }
  reader.text("tool", steps.tool);
  read_words(reader, steps.words);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (results == 0 && expect.must.empty()) {
    return corrupt("{}: must: expected a string or a tool to look for, got nothing", where);
  }
  expect.steps = std::move(steps);
  return expect;
}

Result<Turn> read_turn(const Json& json, const std::string& where) {
  const Json& user = member(json, "user");
  const Json& results = member(json, "tool_results");
  if (!user.is_string()) return corrupt("{}: user: expected a text, got {}", where, user.type_name());
  if (!results.is_array()) return corrupt("{}: tool_results: expected a list, got {}", where, results.type_name());
  NIBBLE_TRY(expect, read_expectation(member(json, "expect"), results.size(), where + ": expect"));
  Turn turn;
  turn.user = user.get<std::string>();
  for (const Json& result : results) {
    if (!result.is_string()) return corrupt("{}: tool_results: expected texts, got {}", where, result.type_name());
    Mock& mock = turn.mocks.emplace_back();
    mock.tool = expect.steps->tool;
    mock.result = result.get<std::string>();
    mock.times = 1;
  }
  turn.expect = std::move(expect);
  return turn;
}

Result<Case> read_case(const Json& json, const std::string& where) {
  Case one;
  const Json &id = member(json, "id"), &category = member(json, "category"), &turns = member(json, "turns");
  if (!id.is_string() && !id.is_number_integer()) {
    return corrupt("{}: id: expected a text or a whole number, got {}", where, id.type_name());
  }
  one.id = id.is_string() ? id.get<std::string>() : id.dump();
  if (!category.is_string()) return corrupt("{}: category: expected a text, got {}", where, category.type_name());
  one.category = category.get<std::string>();
  one.gates = {one.category};
  if (const Json& system = member(json, "system"); !system.is_null()) {
    if (!system.is_string()) return corrupt("{}: system: expected a text, got {}", where, system.type_name());
    one.system = system.get<std::string>();
  }
  if (const Json& tools = member(json, "tools"); !tools.is_null()) {
    if (!tools.is_array()) return corrupt("{}: tools: expected a list, got {}", where, tools.type_name());
    one.tools = tools;
  }
  if (!turns.is_array() || turns.empty()) {
    return corrupt("{}: turns: expected a list with a turn, got {}", where, turns.type_name());
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    NIBBLE_TRY(turn, read_turn(turns[i], fmt::format("{}: turn {}", where, i + 1)));
    one.turns.push_back(std::move(turn));
  }
  return one;
}

}  // namespace

Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view name) {
  std::vector<Case> cases;
  std::set<std::string> ids;
  NIBBLE_RETURN_IF_ERROR(for_each_line(text, [&](const TextLine& line) -> Status {
    const std::string where = fmt::format("{}: line {}", name, line.number);
    NIBBLE_TRY(json, parse_json(line.text, where, {.max_bytes = kMaxLineBytes}));
    NIBBLE_TRY(one, read_case(json, where));
    if (!ids.insert(one.id).second) return corrupt("{}: expected an id of its own, got \"{}\" again", where, one.id);
    cases.push_back(std::move(one));
    return {};
  }));
  if (cases.empty()) return corrupt("{}: expected a case a line, got none", name);
  return cases;
}

Result<std::vector<Case>> read_cases(const Path& file) {
  NIBBLE_TRY(text, read_file(file, kMaxFileBytes));
  return parse_cases(text, file.string());
}

}  // namespace nibble::gate

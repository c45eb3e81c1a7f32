// A behaviour case: a conversation that is played with a model, and what must hold in each of its turns.
// docs/gates.md says how a case is written; this is what is left of it once a recipe has been read.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "gate/call_match.h"
#include "gate/ifeval.h"
#include "gate/json_schema.h"
#include "gate/text_pattern.h"
#include "io/json.h"

namespace nibble::gate {

/// How calls of the small world are judged (data/cases.jsonl of the bundled model): as many messages with calls as
/// there are results, the first call of each of that name, with every word of `words` in its compact arguments.
struct CallSteps {
  std::string tool;
  std::vector<std::string> words;
  size_t count = 0;
};

struct Recall {
  size_t turn = 1;  // counted from 1
  std::vector<TextPattern> must_any;
};

/// All of it must hold. docs/gates.md has a line for each.
struct Expectation {
  std::vector<TextPattern> must, must_any, must_not;
  std::optional<std::string> equals;  // the text of the last reply, to the character
  std::optional<double> equals_number;
  std::string last_number;             // as gate/decimal.h gives it; empty: not asked
  std::vector<std::string> detectors;  // names or families that must not hit
  std::optional<int> max_sentences, max_words;
  std::optional<CallExpectation> call;  // call, call_any, any_call or no_call
  std::optional<CallSteps> steps;
  std::optional<std::vector<std::string>> calls_in_order;
  bool direct = false;
  std::optional<JsonSchema> json_schema;
  std::string finish;
  bool refuse = false;
  std::optional<int> novel;
  std::string name;      // how the user is called
  double within_ms = 0;  // 0: not asked
  std::optional<Recall> recall;
  std::vector<Instruction> instructions;
  std::string judge;  // a question for a judge model
};

/// How a tool answers.
struct Mock {
  std::string tool;
  std::vector<std::pair<std::string, Json>> equal;          // arguments and what they must be,
  std::vector<std::pair<std::string, TextPattern>> search;  // or must match
  std::string result;                                       // the text of the tool message
  double delay_ms = 0;
  int times = 0;  // 0: however often
};

/// A right answer: the messages of the assistant in one turn.
struct GoodMessage {
  std::string text;
  std::vector<std::pair<std::string, Json>> calls;  // name and arguments
};

struct Turn {
  std::string user;
  Expectation expect;
  std::vector<Mock> mocks;
  double pause_ms = 0;
  size_t interrupt_after_chars = 0;
  bool one_reply = false;  // the first message of the assistant ends the turn, even one that calls
  std::vector<GoodMessage> good;
};

struct Case {
  std::string id, category, why;
  std::vector<std::string> gates, tags;
  std::string system;            // empty: no system message
  Json tools = Json::array();    // empty: none
  Json params = Json::object();  // fields of the request
  Json history = Json::array();  // messages between the system prompt and the first turn
  std::vector<Turn> turns;       // at least one
};

/// A case of a .gate file, with the recipe's fields filled in; `where` stands before errors.
Result<Case> parse_case(const Json& json, const std::string& where);

/// `count` of the cases in their order, every category with its share of them to within one case (largest remainder,
/// ties to the category that comes first): the first ones of each. All of them when there are not more.
std::vector<Case> stratified(std::vector<Case> cases, size_t count);

}  // namespace nibble::gate

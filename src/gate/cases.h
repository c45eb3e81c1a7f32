// Behaviour cases: short conversations with what a well-mannered assistant must do in each turn.
//
// A cases file is JSON Lines, one case a line:
//   {"id": 7, "category": "memory", "system": "…", "tools": [OpenAI tool definitions], "turns": [
//     {"user": "…", "expect": {"tool": "search_memory", "args": ["Leela"], "must": ["not remember"]},
//      "tool_results": ["{\"results\": []}"]}]}
// `expect.must` is in every turn; `tool` and `args` stand exactly where `tool_results` is not empty. Other fields of
// `expect` are an error, because an expectation that is not understood would count as met; elsewhere they are ignored.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "io/json.h"

namespace nibble::gate {

struct Expectation {
  std::vector<std::string> must = {};  // in the text that ends the turn, whatever its case
  std::string tool = {};               // the name of the calls before that text
  std::vector<std::string> args = {};  // each occurs in the arguments of those calls
};

struct Turn {
  std::string user;
  Expectation expect;
  std::vector<std::string> tool_results = {};  // one for each call that the turn needs
};

struct Case {
  std::string id;  // a number in the file is kept as its digits
  std::string category;
  std::string system;  // may be empty: then there is no system message
  Json tools = Json::array();
  std::vector<Turn> turns;  // at least one
};

/// All cases of a JSON Lines text, in order; `name` is the file in the error. `corrupt`, with the line and the path in
/// it, for anything that is not as above, a repeated id, or no case at all.
Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view name);
Result<std::vector<Case>> read_cases(const Path& file);

/// `count` of the cases in their order, every category with its share of them to within one case (largest remainder,
/// ties to the category that comes first): the first ones of each. All of them when there are not more.
std::vector<Case> stratified(std::vector<Case> cases, size_t count);

}  // namespace nibble::gate

// A model that judges by a rubric: an opinion beside the verdicts of the rules. It decides no gate.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "gate/chat_endpoint.h"
#include "gate/recipe.h"
#include "gate/runner.h"

namespace nibble::gate {

enum class Opinion : uint8_t { yes, no, unsure };

/// One play, judged.
struct JudgedPlay {
  std::string id;
  int repeat = 1;
  bool passed = false;  // by the rules
  Opinion opinion = Opinion::unsure;
  std::string reason;
};

/// Two plays of one case, each judged the better in one order of showing them or in both.
struct JudgedPair {
  std::string id;
  int repeat = 1;
  int for_a = 0, for_b = 0;  // of the two orders
};

struct JudgeOptions {
  EndpointOptions endpoint;
  Path log;  // opinions are kept there and not asked for again; empty: only in memory
  int jobs = 1;
  int repeats = 1;
};

/// Asks of every play whether it meets the rubric of its turns (`judge`), or else what its case is for (`why`). Sent as
/// one request at temperature 0 with a JSON schema {verdict: yes | no | unsure, reason}. An answer of another form, or
/// none, is `unavailable`: a judge that cannot be understood has judged nothing.
Result<std::vector<JudgedPlay>> judge_plays(const Recipe& recipe, const Records& records, const JudgeOptions& options,
                                            const Progress& progress = {});

/// Asks of every pair of plays with different replies which is better, in both orders; a judge that changes its mind
/// with the order has no preference.
Result<std::vector<JudgedPair>> judge_pairs(const Recipe& recipe, const Records& a, const Records& b,
                                            const JudgeOptions& options, const Progress& progress = {});

/// {model, n, yes, no, unsure, agree, disagree: [{id, repeat, passed, opinion, reason}]}: agree counts the plays whose
/// opinion is not unsure and that of the rules.
Json to_json(const std::vector<JudgedPlay>& plays, const std::string& model);
/// {model, n, a, b, tie}
Json to_json(const std::vector<JudgedPair>& pairs, const std::string& model);
/// The same in a line for people.
std::string judge_text(const Json& json);

}  // namespace nibble::gate

// A cell: the work that one call for conversations makes, from its draws to candidates with their verdicts. Its result
// is a pure function of the recipe, the seed and the teacher's answers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "synth/recipe.h"
#include "synth/teacher.h"
#include "synth/validate.h"

namespace nibble::synth {

/// One conversation that came of a cell.
struct Candidate {
  int64_t index = 0;            // in its cell
  int64_t attempts = 1;         // 2: it was repaired
  Json record;                  // {"messages", "tools"} in the form of training data
  std::string persona;          // what `data split` keeps together
  std::string prompt;           // hash of the question that brought it
  int64_t seed = 0;             // of that question
  Json draws = Json::object();  // what was drawn for it: pairs, exchanges
  std::vector<Fault> faults;    // none: it may go into the set
};

struct CellResult {
  std::vector<Candidate> candidates;  // by index
  int64_t asked = 0;                  // conversations
  int64_t broken = 0;                 // begun in an answer, and no conversation
  bool lost = false;                  // no answer at all
};

struct CellWork {
  const Category* category = nullptr;
  int64_t cell = 0;
  int64_t count = 1;  // conversations
};

/// Asks, or finds the answer in the journal. `unavailable`: this question has no answer, the cell gives up; any other
/// error ends the run.
using Ask = std::function<Result<Answer>(int64_t attempt, int64_t step, const Question& question)>;

struct CellContext {
  const Recipe* recipe;
  const Validator* validator;
  uint64_t seed;
};

/// A request for `count` conversations, and one more that hands back those with faults.
Result<CellResult> write_cell(const CellContext& context, const CellWork& work, const Ask& ask);

/// One conversation, message by message; a reply with faults is asked for once more.
Result<CellResult> roll_cell(const CellContext& context, const CellWork& work, const Ask& ask);

/// `seed` of a request: an odd number of 31 bits, so that no server takes it for none.
int64_t question_seed(const CellContext& context, const CellWork& work, int64_t attempt, int64_t step);

}  // namespace nibble::synth

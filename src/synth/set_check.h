// Whether the finished set is what was promised.
#pragma once

#include <string>
#include <vector>

#include "synth/collection.h"
#include "synth/hold_out.h"

namespace nibble::synth {

struct SetReport {
  int64_t rows = 0;
  int64_t with_calls = 0, with_empty = 0, with_failure = 0;  // conversations with such a call or result
  int64_t tokens_min = 0, tokens_median = 0, tokens_max = 0;
  bool tokens_estimated = false;
  int64_t text_overlap = 0;             // conversations with a user's text of a gate case
  std::vector<std::string> shortfalls;  // none: the set is complete and sound

  double call_share() const { return rows == 0 ? 0 : static_cast<double>(with_calls) / static_cast<double>(rows); }
};

/// Every row is validated again, as if it had come from elsewhere. Short falls: a category below its quota, a fault of
/// a row, fewer conversations with calls than the recipe asks for, an overlap with what is held out (texts, or pairs
/// where the recipe holds out those: then text overlap is counted, no more).
Result<SetReport> check_set(const Recipe& recipe, const Validator& validator, const HoldOut& hold_out,
                            const Collection& collection);

}  // namespace nibble::synth

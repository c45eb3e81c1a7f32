// What a file of training conversations holds.
#pragma once

#include <map>
#include <string>

#include "base/file.h"
#include "base/progress.h"
#include "synth/hold_out.h"
#include "synth/record_check.h"

namespace nibble::synth {

struct DataStats {
  int64_t records = 0, bad = 0;                             // bad: training would refuse them; not counted below
  int64_t groups = 0;                                       // what `data split` keeps together
  int64_t system_prompts = 0, toolsets = 0;                 // different ones
  int64_t user_turns = 0, replies = 0, calls = 0;           // messages of the user, of the assistant; calls in them
  int64_t with_calls = 0, with_empty = 0, with_failed = 0;  // records with a call, an empty or a failed result
  int64_t with_thinking = 0, with_markdown = 0;             // records with such a reply
  int64_t duplicates = 0, near_duplicates = 0;              // of a record before, to the letter or .8 similar
  int64_t tokens = 0, tokens_min = 0, tokens_median = 0, tokens_p95 = 0, tokens_max = 0;
  bool tokens_estimated = false;
  std::map<std::string, int64_t> categories, tools;  // records; calls
  std::map<int64_t, int64_t> turns;                  // records by messages of the user
};

/// Reads every record once. Progress counts bytes.
Result<DataStats> data_stats(const Path& file, const RecordCheck& check, const Progress& progress = {});

/// The records whose user says what a gate case's user says: "FILE:LINE: case: text", the first `most`, and how many.
/// With `pairs` also those whose `meta` names a pair of entities that is held out (draw.h): "FILE:LINE: a and b".
struct Overlaps {
  int64_t records = 0, pair_records = 0;
  std::vector<std::string> shown, shown_pairs;
};
Result<Overlaps> find_overlaps(const Path& file, const HoldOut& hold_out, bool pairs, size_t most,
                               const Progress& progress = {});

}  // namespace nibble::synth

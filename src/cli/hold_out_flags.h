// The flags that say what must not be in training data, and what was found of it: the same words for checking data and
// before training on it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "synth/data_stats.h"

namespace nibble::cli {

struct HoldOutFlags {
  std::string recipe;              // of nibble generate: its hold-out key and gates
  std::vector<std::string> gates;  // gate recipes and files of cases
  bool given() const { return !recipe.empty() || !gates.empty(); }
};

/// `flags` must outlive the parse. `with_recipe`: --recipe, too, where the command has no other of that name.
void add_hold_out_flags(CLI::App& command, HoldOutFlags& flags, bool with_recipe);

struct HoldOutReport {
  bool pairs = false;              // the key is entity pairs: text overlap is counted, no more
  bool refuses = false;            // an overlap is an error, because somebody said what is held out
  std::vector<std::string> gates;  // whose texts
  size_t texts = 0;
  synth::Overlaps overlaps;

  /// Records that must not be in the data.
  int64_t errors() const { return !refuses ? 0 : pairs ? overlaps.pair_records : overlaps.records; }
};

/// Without flags the texts of the bundled gates are looked for and reported, no more.
Result<HoldOutReport> look_for_held_out(const Path& file, const HoldOutFlags& flags, size_t most);

/// `invalid_argument` naming the first record that must not be in the data; ok where no flag was given.
Status refuse_held_out(const Path& file, const HoldOutFlags& flags);

Json hold_out_json(const HoldOutReport& report);
void print_hold_out(const HoldOutReport& report);

}  // namespace nibble::cli

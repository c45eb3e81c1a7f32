// The doctor: what would go wrong with a checkpoint folder where, and a copy without it.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/doctor/rule.h"

namespace nibble::checkpoint::doctor {

struct RuleFinding {
  const Rule* rule = nullptr;
  Level level = Level::note;  // for whoever asked
  Finding finding;
  /// Whether --fix would put it right for whoever asked.
  bool repaired = false;
};

struct Report {
  Asked asked;
  std::vector<RuleFinding> findings;  // the worst first, in the order of the table within a level

  size_t count(Level level) const;
};

/// Reads the folder's JSON files, tokenizer, template and tensor headers; of weights no more than scalar scales.
/// Nothing is changed. `not_found` for what is no folder with a config.json; `corrupt` for a config.json that is no
/// JSON object. Everything else that is wrong is a finding.
Result<Report> examine(const Path& folder, Asked asked = {});

struct Repaired {
  Report before;
  std::vector<const Rule*> rules;          // that were applied
  std::vector<std::string> changed_files;  // beside weights
  bool weights_changed = false;
};

/// Writes a copy of the folder to `output`, which is new or empty, with the findings put right that are marked so.
/// Files that no repair concerns are copied byte for byte, weights too; a folder without such findings comes out as it
/// is. Repairing the copy again changes nothing. Weight files are streamed; the copy appears complete or not at all.
Result<Repaired> repair(const Path& folder, const Path& output, Asked asked = {});

}  // namespace nibble::checkpoint::doctor

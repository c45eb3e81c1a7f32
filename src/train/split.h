// Cutting data files apart and down. Lines are copied byte for byte, keys that nibble does not know included.
#pragma once

#include <cstdint>

#include "base/file.h"
#include "base/progress.h"

namespace nibble::train {

struct SplitReport {
  int64_t train = 0, valid = 0;  // records
  int64_t groups = 0, valid_groups = 0;
};

/// Writes DIR/train.jsonl and DIR/valid.jsonl, which appear together or not at all. Records of one group
/// (Record::group) stay together, and a group's side depends on (seed, group) alone: data that grows keeps its
/// validation set. So the share is met only as closely as the groups allow. `share` in (0, 1). `corrupt` for the first
/// bad record; `invalid_argument` where a side would be empty.
Result<SplitReport> split_file(const Path& file, const Path& output, double share, uint64_t seed,
                               const Progress& progress = {});

struct DedupeReport {
  int64_t records = 0, kept = 0;
  int64_t near = 0;  // left out for being nearly the same as one before
};

/// Writes the first of every set of records with the same messages and tools, whatever else they say (content_key).
/// With `near` in (0, 1] also only the first of those that say nearly the same, system prompts aside: of that
/// similarity at least to one that was kept (text/near_duplicates.h).
Result<DedupeReport> dedupe_file(const Path& file, const Path& output, double near = 0, const Progress& progress = {});

}  // namespace nibble::train

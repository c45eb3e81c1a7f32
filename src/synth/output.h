// The files of a finished set: the conversations, and the manifest that says where they come from.
#pragma once

#include <string>

#include "base/file.h"
#include "io/json.h"
#include "synth/generate.h"

namespace nibble::synth {

/// OUTPUT.journal and OUTPUT.manifest.json beside OUTPUT.
Path journal_path(const Path& output);
Path manifest_path(const Path& output);

/// What the rows were made with, beside the recipe.
struct Origin {
  std::string teacher;  // the model's name, or the command line
  uint64_t seed = 1;
  std::string version;  // of nibble
};

/// One line of training data:
///   {"messages", "tools", "id", "category", "persona", "meta": {"recipe", "recipe_version", "fingerprint", "cell",
///    "index", "attempts", "teacher", "nibble", "sampling", "seed", "prompt", "tokens", "verdict", "pairs"?,
///    "exchanges"?}}
/// No time of day, so that a run that was killed and taken up writes the same bytes; the journal has the times, under
/// (category, cell, attempt).
Json row_of(const Recipe& recipe, const Validator& validator, const Accepted& accepted, const Origin& origin);

/// Counts, hashes, rejections by reason, cost. `rows_hash`: SHA-256 of the file of conversations; empty: none is there.
Json manifest_of(const Recipe& recipe, const GenerateReport& report, const Origin& origin,
                 const std::string& rows_hash);

/// Both files, each under a temporary name until it is whole. Returns the manifest.
Result<Json> write_set(const Path& output, const Recipe& recipe, const Validator& validator,
                       const Collection& collection, const GenerateReport& report, const Origin& origin);

}  // namespace nibble::synth

// Public benchmarks, read from a folder of the user's into a recipe that the runner plays like any other
// (docs/gates.md). Nothing of them is bundled or fetched.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "gate/recipe.h"

namespace nibble::gate {

struct Suite {
  Recipe recipe;                   // its gates only report: a benchmark has no threshold
  std::vector<std::string> about;  // lines for people: where it is from, its licence, what was loaded and what was not
};

/// bfcl, gsm8k, ifeval.
std::vector<std::string> suite_names();

/// Reads a suite in the form in which it is published. Counts that differ from the published ones are only said.
/// Errors: `not_found` for a name that is none, a folder without the suite's files and a file without its answers;
/// `invalid_argument` for a folder without a licence file (LICENSE, LICENCE or COPYING, with whatever ending), unless
/// `has_rights`; `corrupt`, with file and line, for anything in the files that is not the suite's.
Result<Suite> load_suite(const std::string& name, const Path& folder, bool has_rights);

}  // namespace nibble::gate

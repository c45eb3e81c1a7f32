// JSONL: one JSON object a line. Blank lines are skipped; an error names file and line.
#pragma once

#include <functional>

#include "base/file.h"
#include "io/json.h"

namespace nibble {

/// Calls `each` for every line in order and stops at the first Status that is not ok. Lines are 1-based.
Status for_each_json_line(const Path& file, const std::function<Status(Json& object, int64_t line)>& each);

}  // namespace nibble

// JSONL: one JSON object a line. Blank lines are skipped; an error names file and line.
#pragma once

#include <functional>
#include <string_view>

#include "base/file.h"
#include "io/json.h"

namespace nibble {

/// Calls `each` for every line that is not blank, in order, without its newline, and stops at the first Status that is
/// not ok. Lines are 1-based; `read` of `size` bytes of the file are behind it.
struct TextLine {
  std::string_view text;
  int64_t number = 0;
  uint64_t read = 0, size = 0;
};
Status for_each_line(const Path& file, const std::function<Status(const TextLine& line)>& each);
/// The same of a text that was read.
Status for_each_line(std::string_view text, const std::function<Status(const TextLine& line)>& each);

/// Calls `each` for every line in order and stops at the first Status that is not ok. Lines are 1-based.
Status for_each_json_line(const Path& file, const std::function<Status(Json& object, int64_t line)>& each);

}  // namespace nibble

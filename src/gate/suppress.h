// Findings that somebody looked at and excused: they stay in the transcripts, and no gate counts them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "gate/record.h"

namespace nibble::gate {

struct Suppression {
  std::string case_id;
  std::string detector;  // "md.bold", or a family: "md"
  std::string reason;    // why it is none
};

/// A file of lines {"case": "markdown.fruits", "detector": "md.bold", "reason": "…"}; `corrupt` for anything else.
Result<std::vector<Suppression>> read_suppressions(const Path& file);

/// Notes the reason at every finding of the record that is excused.
void suppress(std::span<const Suppression> suppressions, CaseRecord& record);

}  // namespace nibble::gate

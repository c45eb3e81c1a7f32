// The files of a run, for people and for other programs.
#pragma once

#include <functional>

#include "base/file.h"
#include "gate/report.h"
#include "gate/runner.h"

namespace nibble::gate {

/// Calls `each` with every record of the run, in the order of the recipe's cases.
Status for_each_record(const Recipe& recipe, const Records& records, int repeats,
                       const std::function<Status(const CaseRecord&)>& each);

/// report.json: to_json(report) with "conversations". Written one conversation after the other.
Status write_report_json(const Path& file, const Recipe& recipe, const Records& records, const Report& report,
                         int repeats);

}  // namespace nibble::gate

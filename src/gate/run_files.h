// The files of a run, for people and for other programs.
#pragma once

#include <functional>

#include "base/file.h"
#include "gate/report.h"
#include "gate/runner.h"

namespace nibble::gate {

/// Calls `each` with every record of the run and its case, in the order of the recipe's cases.
Status for_each_record(const Recipe& recipe, const Records& records, int repeats,
                       const std::function<Status(const Case&, const CaseRecord&)>& each);

/// report.json: to_json(report) with "conversations". Written one conversation after the other.
Status write_report_json(const Path& file, const Recipe& recipe, const Records& records, const Report& report,
                         int repeats);

/// report.json, junit.xml and report.html in a folder that is there; with a suffix report_b.json and so on. Each
/// appears under its name when it is complete, and none grows with the run in memory.
Status write_run_files(const Path& folder, const std::string& suffix, const Recipe& recipe, const Records& records,
                       const Report& report, int repeats);

}  // namespace nibble::gate

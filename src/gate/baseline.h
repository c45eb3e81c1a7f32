// A run kept as one small file, to hold later runs against.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "gate/report.h"
#include "gate/runner.h"

namespace nibble::gate {

struct Baseline {
  std::string recipe, model, started;
  std::map<std::string, std::map<std::string, bool>> plays;  // of each gate: whether a play ("id#repeat") passed
  std::map<std::string, Verdict> verdicts;
  Distribution ttfat_ms;
};

Result<Baseline> baseline_of(const Recipe& recipe, const Records& records, const Report& report, int repeats);
Status write_baseline(const Path& file, const Baseline& baseline);
Result<Baseline> read_baseline(const Path& file);

struct BaselineDelta {
  std::string gate;
  int64_t n = 0, then = 0, now = 0;  // plays that both hold, and how many passed
  int64_t fixed = 0, broken = 0;     // flips
  double p = 1, p_holm = 1;          // McNemar, corrected over the gates
  bool regressed = false;
};

struct BaselineComparison {
  std::vector<BaselineDelta> gates;
  int64_t lost = 0, added = 0;  // plays that only the baseline, or only the run has: not compared
  double ttfat_then_ms = 0, ttfat_now_ms = 0;
  bool slower = false;
  std::vector<std::string> regressions;  // a line each

  bool regressed() const { return !regressions.empty(); }
};

/// A gate regressed when it passed then and does not now, or when the Holm-corrected p is under .05 and the rate fell
/// by at least 2 points. The run is slower when its median TTFAT is more than a tenth, and more than three median
/// absolute deviations of the baseline, above the baseline's.
BaselineComparison compare_with_baseline(const Baseline& then, const Baseline& now);

std::string to_text(const BaselineComparison& comparison);

}  // namespace nibble::gate

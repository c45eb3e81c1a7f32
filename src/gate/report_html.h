// Reports for people: one HTML file that holds everything it shows, with filters and transcripts. Light or dark as the
// reader's system is, and readable on a phone.
#pragma once

#include <string>

#include "gate/compare.h"

namespace nibble::gate {

/// Gates with intervals, thresholds and verdicts, categories, latency, findings, and every play. The numbers are those
/// of to_json(report), which is in the page as <script id="report">.
Status write_report_html(const Path& file, const Recipe& recipe, const Records& records, const Report& report,
                         int repeats);

/// The two runs of a comparison.
struct ComparedSides {
  const Records &a, &b;
  std::string name_a, name_b;
  bool hardened = false;  // b had the hardened prompt: a word for each gate says what it did
};

/// Gates side by side with flips and p, verbosity, latency, and both transcripts of every play whose verdict or text
/// differs. to_json(comparison) is in the page as <script id="report">; comparison.report_a.run and report_b.run say
/// what was run.
Status write_compare_html(const Path& file, const Recipe& recipe, const ComparedSides& sides,
                          const Comparison& comparison, int repeats);

}  // namespace nibble::gate

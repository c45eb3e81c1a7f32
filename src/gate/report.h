// What a run of the gate found: the numbers, and for each failed case why.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gate/judge.h"
#include "gate/stats.h"
#include "io/json.h"

namespace nibble::gate {

struct CaseResult {
  std::string id, category;
  bool passed = false;
  Manners manners = {};                      // over all replies of the case
  std::string reason = {};                   // why it failed: "turn 2: expected …, got …"
  std::vector<std::string> transcript = {};  // of the turn that failed: "user: …", "call: …", "tool: …", "reply: …"
};

/// Counts over cases; every case of the run is in the denominator, whatever became of it.
struct Tally {
  std::string category;
  int64_t cases = 0, passed = 0, with_manners = 0;  // with_manners: passed, and manners are clean
  int64_t thinks = 0, markdown = 0, asks = 0;

  Interval interval() const { return wilson_95(passed, cases); }
};

struct GateReport {
  std::string endpoint, model;
  int max_tokens = 0;
  double temperature = 0, seconds = 0;
  std::string thinking;             // "on", "off" or "default"
  std::string activations;          // of a local model: "a16", "a4", …; else empty
  int64_t retries = 0;              // requests sent again after a transport failure
  std::vector<CaseResult> results;  // in the order of the cases file

  Tally overall() const;
  std::vector<Tally> categories() const;  // by name
};

/// {"schema": 1, "run": {…}, "overall": {…}, "categories": [{…}], "failures": [{id, category, reason, transcript}]};
/// a tally is {category, n, passed, rate, ci: [low, high], with_manners, thinks, markdown, asks}.
Json to_json(const GateReport& report);

/// A table for people: a line a category, the overall line, then the first `failures` failed cases with their
/// transcripts.
std::string to_text(const GateReport& report, size_t failures = 5);

}  // namespace nibble::gate

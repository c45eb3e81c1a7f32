// Two runs of the same cases against each other: two servers, or one plain and hardened, or one now and then.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gate/report.h"
#include "gate/runner.h"

namespace nibble::gate {

/// One gate in both runs, over the plays of cases that both hold.
struct GateDelta {
  std::string gate;
  int64_t n = 0;         // pairs
  int64_t a = 0, b = 0;  // passed in either
  int64_t only_a = 0, only_b = 0;
  double p = 1;       // McNemar, exact
  double p_holm = 1;  // corrected over the gates of the comparison
  Verdict verdict_a = Verdict::not_judged, verdict_b = Verdict::not_judged;
  std::vector<std::string> flipped;  // ids that pass in one run only
};

/// A pair of plays that differ, for readers.
struct Disagreement {
  std::string id;
  bool passed_a = false, passed_b = false;
  std::string reply_a = {}, reply_b = {};  // what ended the first turn that differs
};

struct Comparison {
  std::vector<GateDelta> gates;
  int64_t pairs = 0;
  int64_t lost_a = 0, lost_b = 0;    // plays of one run that the other lacks
  double verbosity = 1;              // mean words of a reply, b by a, on the same cases
  int64_t same_text = 0;             // plays with the same replies to the character
  double trigger_f1 = 1;             // turns with a call: both is right, only b or only a is wrong
  int64_t calls_a = 0, valid_a = 0;  // calls whose arguments the tool's schema allows
  int64_t calls_b = 0, valid_b = 0;
  Report report_a, report_b;
  std::vector<Disagreement> disagreements;  // at most kMaxDisagreements
};

inline constexpr size_t kMaxDisagreements = 200;

/// `a` is the reference. A play passes a gate of a detector when none of its replies has a hit and, where the case
/// lists the gate, it passes.
Result<Comparison> compare_runs(const Recipe& recipe, const Records& a, const Records& b, const ReportOptions& options);

/// What the longer system prompt did to a gate: a is plain, b hardened.
enum class Hardening : uint8_t { not_needed, fixed, partial, no, worse };
const char* name(Hardening hardening);
///   not_needed  a passes           fixed    a fails, b passes
///   partial     b still fails, but is better with p < 0.05      worse    b has fewer passes with p < 0.05
Hardening hardening_of(const GateDelta& delta);

Json to_json(const Comparison& comparison);
std::string to_text(const Comparison& comparison, const std::string& name_a, const std::string& name_b);

}  // namespace nibble::gate

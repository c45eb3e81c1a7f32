// Plays behaviour cases against an OpenAI-compatible server.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "gate/cases.h"
#include "gate/chat_endpoint.h"
#include "gate/report.h"

namespace nibble::gate {

struct GateOptions {
  EndpointOptions endpoint;  // an empty model means the first that the server lists
  Path cases;
  size_t limit = 0;   // the first so many cases; 0 = all
  size_t sample = 0;  // so many of these, by category; 0 = all
  int jobs = 1;       // cases played at once
};

/// Plays one case: its turns in order, the model's own replies in the history, after each right call the next tool
/// result as the answer to it. The case ends with its first turn that fails (judge.h says when), and passes when none
/// does. A reply that breaks off fails the case; other errors of the endpoint, and of a detector, are errors here.
Result<CaseResult> play_case(ChatEndpoint& endpoint, const Case& one);

/// Plays all of them on options.jobs threads; results do not depend on how many. The denominator is the number of
/// cases, fixed before the first request. The first error stops the run, and then there is no report: a rate over the
/// cases that happened to get an answer would be another number under the same name.
///
/// Exit code of a command around it: 0 when there is a report, whatever it says; 2 for any error (unreachable or
/// refusing server, cases file that is not one), as for wrong flags. Progress is called by one thread at a time, with
/// finished cases as unit.
Result<GateReport> run_gate(const GateOptions& options, const Progress& progress = {});

}  // namespace nibble::gate

// Plays a case: says the user's turns, lets mock tools answer the model's calls, and judges each turn.
#pragma once

#include <string>

#include "base/result.h"
#include "gate/anomalies.h"
#include "gate/case.h"
#include "gate/chat_endpoint.h"
#include "gate/record.h"

namespace nibble::gate {

struct PlayOptions {
  bool play_on = false;         // play the turns after a failed one, too
  std::string hardening = {};   // put behind every system prompt, after an empty line
  int64_t seed = 1;             // repeat r of a case is asked with seed + r - 1
  double temperature = -1;      // instead of the case's; negative: the case's own
  bool template_kwargs = true;  // false: chat_template_kwargs are left out, for a server that refuses them
};

/// A system prompt with its hardening behind it.
std::string hardened(const std::string& system, const std::string& hardening);

/// The key of a case in a log: what would make another answer possible is in it.
std::string case_key(const Case& one, const PlayOptions& options, int repeat, const std::string& model,
                     const std::string& recipe_hash);

/// The case, played for the `repeat`-th time (from 1). The model's own replies and the results of its calls are the
/// history of what follows. Every call of a message is answered by the first mock that fits; a turn has at most
/// Detectors::kMaxRounds rounds of them. A reply that breaks off after its first token fails its turn ("aborted") and
/// ends the case. A server that cannot be asked is the record's `error`, not a Status; Statuses are `cancelled`, and
/// what detectors and regexes give.
Result<CaseRecord> play_case(ChatEndpoint& endpoint, const Case& one, const Detectors& detectors,
                             const PlayOptions& options, int repeat);

}  // namespace nibble::gate

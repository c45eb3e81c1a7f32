// What happened when a case was played: enough to judge and to report it again without the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "gate/reply.h"
#include "io/json.h"

namespace nibble::gate {

/// An expectation that was not met.
struct Failure {
  std::string what;    // the operator: "must_any", "call.value", or "aborted"
  std::string detail;  // expected …, got …
};

/// Of an instruction (gate/ifeval.h) that was not followed, and of one that was followed loosely only.
inline constexpr const char* kInstruction = "instruction";
inline constexpr const char* kInstructionLoose = "instruction_loose";

/// A finding of a detector, whatever the case expects.
struct Anomaly {
  std::string id;  // "md.bold", "repetition.cycle", "tool_loop", …
  std::string snippet = {};
  bool warning = false;          // shown and counted, but no fault of the reply
  std::string suppressed = {};   // why it is excused; not in logs (suppress.h)
  int64_t begin = -1, end = -1;  // where it stands, in bytes of the text that the detector examined; negative: nowhere

  /// "md" of "md.bold".
  std::string family() const { return id.substr(0, id.find('.')); }
};

/// A message of the assistant and, where it called, what the tools answered.
struct PlayedMessage {
  StreamedReply said;
  std::vector<std::string> results = {};
  std::vector<Anomaly> anomalies = {};
};

struct PlayedTurn {
  std::string user;
  std::vector<PlayedMessage> messages = {};
  std::vector<Failure> failures = {};
  std::vector<Anomaly> anomalies = {};  // of the turn as a whole
  std::string not_judged = {};          // what could not be: "judge: …"

  bool passed() const { return failures.empty(); }
  /// The message that ends the turn, or null.
  const PlayedMessage* last() const { return messages.empty() ? nullptr : &messages.back(); }
};

struct CaseRecord {
  std::string key;  // of the log
  std::string id, category;
  int repeat = 1;
  std::vector<std::string> gates;
  std::vector<PlayedTurn> turns;
  std::string error;    // the server could not be asked: infrastructure, not a verdict
  std::string lacking;  // what the server cannot do and the case needs: neither passed nor failed (capabilities.h)
  int retries = 0;

  bool passed() const;
  /// Also without a finding that is more than a warning.
  bool clean() const;
};

/// One line of a log, and back. `corrupt` for anything else.
Json to_json(const CaseRecord& record);
Result<CaseRecord> record_from_json(const Json& json, const std::string& where);

}  // namespace nibble::gate

// Speed bench: how fast an OpenAI-compatible server reads and speaks, as its client sees it. It sends requests and
// keeps what was timed; speed_report.h makes numbers of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "gate/chat_endpoint.h"

namespace nibble::gate {

/// What is varied while all else stays the same.
enum class Sweep : uint8_t {
  preparation,   // not measured: the first request, sizing, warm-up
  context,       // tokens of the prompt, with a prefix that is new (cold) or known (warm)
  conversation,  // turns of a spoken conversation
  concurrency,   // clients, each of which sends its next request when its last was answered
  output,        // tokens that a reply may have
};
const char* name(Sweep sweep);

struct SpeedOptions {
  EndpointOptions endpoint;      // retries are not used: what is refused counts as failed
  Json params = Json::object();  // of every request: temperature, …; max_tokens is the bench's
  uint64_t seed = 1;             // of the prompts; the same prompts for every server

  std::vector<Sweep> sweeps = {Sweep::context, Sweep::conversation, Sweep::concurrency, Sweep::output};
  std::vector<int64_t> contexts = {128, 512, 2048, 8192, 16384, 32768};
  std::vector<int64_t> clients = {1, 2, 4, 8, 16};  // prompts are new and as long as the shortest context
  std::vector<int64_t> outputs = {32, 128, 512};
  int64_t conversations = 3, turns = 20;

  int64_t requests = 30;    // of a point; at least two for each client
  int64_t warmup = 5;       // requests before the first point
  int64_t max_tokens = 64;  // of a reply, but where that is what varies
  /// A point sends no further request after so many seconds once kFewestRequests were answered, and is left out where
  /// these would take kPatience times as long; no conversation is begun after kPatience times as long. 0 = no limit.
  double seconds = 15;
};

inline constexpr int64_t kFewestRequests = 3;
inline constexpr double kPatience = 4;

/// One request, and what came of it.
struct SpeedRecord {
  Sweep sweep = Sweep::preparation;
  int64_t size = 0;         // tokens, turn, clients or tokens: see Sweep
  bool warm = false;        // of context
  int64_t stream = 0;       // the conversation or the client, from 0
  bool counted = true;      // false: prepares for a point, or could not be part of one
  double begin_ms = 0;      // since the run began
  double end_ms = 0;        // the same
  StreamedReply said = {};  // without its texts
  std::string error = {};   // why there is no reply
};

struct SpeedRun {
  std::vector<SpeedRecord> records;  // in the order in which they ended
  std::vector<std::string> skipped;  // what was left out, and why: a line each
  bool sizes_measured = false;       // false: the server counts no prompt tokens, so sizes are guesses
};

/// Fills `run`; what was measured before an error stays there. A request that fails is part of its point; three in a
/// row end the point. Contexts that the server refuses, or of which it read less than three quarters, are skipped with
/// all larger ones. Errors: `cancelled`; `unavailable` when the server no longer answers at all; and what the first
/// request met. Progress is called by one thread at a time, with requests as unit.
Status run_speed_bench(const SpeedOptions& options, SpeedRun& run, const Progress& progress = {});

}  // namespace nibble::gate

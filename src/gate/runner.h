// Plays the cases of a recipe against an OpenAI-compatible server, and keeps what happened.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "gate/capabilities.h"
#include "gate/chat_endpoint.h"
#include "gate/play.h"
#include "gate/recipe.h"
#include "gate/report.h"
#include "gate/suppress.h"
#include "io/journal.h"

namespace nibble::gate {

/// Whom the cases are played with, and how.
struct Side {
  EndpointOptions endpoint;
  PlayOptions play;
  Json server = Json::object();    // what is known of the server, for the header of the log
  Capabilities capabilities = {};  // a case that needs what is lacking is not played
  Path log;                        // run.jsonl; empty: kept in memory only
};

struct RunOptions {
  int repeats = 1;
  int jobs = 1;               // cases played at once, 1 to 256
  int shard = 1, shards = 1;  // of every `shards` cases play one: the first of them, the second, …
  bool fail_fast = false;     // stop at the first case that fails
  bool resume = false;        // go on with logs that are there
  std::string version = {};   // of the program, for the header of the log
  bool no_content = false;    // texts stay out of the logs: hashes stand for them
};

/// SHA-256 of the system prompt with which the cases ask, hardened as this side is; of several, in order, one after the
/// other.
std::string prompt_hash(const Recipe& recipe, const PlayOptions& play);

struct MergedLogs;

/// The records of one run, by case and repeat.
class Records {
 public:
  /// The record, or `not_found` where the case was not played.
  Result<CaseRecord> get(const std::string& case_id, int repeat) const;
  size_t size() const { return offsets_.size() + kept_.size(); }
  /// Excuses findings in all that get() gives from now on.
  void suppress(std::vector<Suppression> suppressions) { suppressions_ = std::move(suppressions); }

 private:
  friend class Run;
  friend Result<MergedLogs> merge_logs(const Recipe&, std::span<const Path>, const Path&);
  std::vector<Suppression> suppressions_;
  std::optional<Journal> journal_;
  std::map<std::pair<std::string, int>, uint64_t> offsets_;
  std::map<std::pair<std::string, int>, CaseRecord> kept_;
};

/// Plays every case of the recipe `repeats` times with each side, in an order shuffled by the first side's seed, on
/// `jobs` threads; what is found does not depend on how many. With two sides a case is played A B, the next B A, so
/// that a drift of the machine meets both alike. Each finished case is on the disk before the next begins; with
/// `resume` those of the logs are not played again, errors of a server are. Errors: `invalid_argument` for a log that
/// was begun otherwise, `cancelled`, and `unavailable` after kErrorsInARow plays that a server did not answer. What was
/// played by then is in the logs. Progress is called by one thread at a time, with plays as unit.
Result<std::vector<Records>> play_recipe(const Recipe& recipe, std::span<const Side> sides, const RunOptions& options,
                                         const Progress& progress = {});
/// With one side.
Result<Records> play_recipe(const Recipe& recipe, const Side& side, const RunOptions& options,
                            const Progress& progress = {});

inline constexpr int kErrorsInARow = 10;

/// The log of a run that was played in shards, put together from theirs. `header` is what they share.
struct MergedLogs {
  Records records;
  Json header;
};
/// Writes the log `output`, a new file whose folder is made where it is not there. `invalid_argument` for logs of
/// different runs, of another recipe than this, or with the same play twice; `corrupt` for a line that is torn:
/// --resume in that shard's folder mends it.
Result<MergedLogs> merge_logs(const Recipe& recipe, std::span<const Path> logs, const Path& output);

/// The report of a run: every case of the recipe is in its denominators.
Result<Report> report_of(const Recipe& recipe, const Records& records, const ReportOptions& options);

}  // namespace nibble::gate

// What a run found: gates with their verdicts, pass rates by category, latency, anomalies. Made of records alone, so a
// resumed run, another number of jobs or a later reading of the log give the same report.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gate/recipe.h"
#include "gate/record.h"
#include "gate/stats.h"
#include "io/json.h"

namespace nibble::gate {

enum class Verdict : uint8_t { pass, fail, inconclusive, not_judged };
const char* name(Verdict verdict);

struct GateResult {
  Gate gate;
  int64_t k = 0, n = 0;        // of a rate or a count
  double value = 0;            // the rate, the count, the percentile or the ratio
  Interval interval = {0, 1};  // of a rate, 95 %
  bool proved = false;         // a rate whose whole interval meets the threshold: it passed, and not by luck
  Verdict verdict = Verdict::not_judged;
  std::string why = {};                                         // of inconclusive and not_judged
  std::vector<std::string> failures = {};                       // ids of cases
  std::vector<std::pair<std::string, std::string>> worst = {};  // the first three: id, what was wrong
};

/// Counts over cases; every case of the run is in the denominator, whatever became of it.
struct Tally {
  std::string category;
  int64_t cases = 0, passed = 0, with_manners = 0;  // with_manners: passed, and nothing found but warnings
  int64_t thinks = 0, markdown = 0, asks = 0;       // with a hit of think (or reasoning), md, confirm

  Interval interval() const { return wilson_95(passed, cases); }
};

/// Of the replies of a run.
struct Distribution {
  int64_t n = 0;
  double p50 = 0, p95 = 0, p99 = 0, max = 0;
  double mad = 0;  // median distance from p50
};
Distribution distribution(std::vector<double> values);

struct Latency {
  Distribution ttft_ms, ttfat_ms, between_tokens_ms, decode_tok_s, reply_ms;
  Distribution warm_ttfat_ms;         // of first replies in turns after the first: what the gate ttft judges
  std::vector<Distribution> by_turn;  // ttfat_ms of first replies, by their turn
  double growth = 0;  // median TTFAT of turns 16-20 by that of turns 2-4; 0: no conversation of 20 turns
};

/// An excused finding.
struct Suppressed {
  std::string case_id, detector, reason;
  int64_t hits = 0;
};

struct Report {
  Json run = Json::object();  // what was run: recipe, model, server, parameters, times
  std::vector<GateResult> gates;
  Tally overall;
  std::vector<Tally> categories;  // by name
  Latency latency;
  std::map<std::string, int64_t> anomalies;  // hits by id
  std::vector<Suppressed> suppressed;        // those that are excused
  double words_mean = 0, tokens_mean = 0;    // of a reply that is text
  int64_t replies = 0, retries = 0, errors = 0, missing = 0;
  std::map<std::string, int64_t> lacking;  // plays that the server could not be asked for, by what it lacks

  /// Of a command: 0 when every judged gate passes, 1 when one does not or is inconclusive, 2 when the server did not
  /// answer a case at all.
  int exit_code() const;
};

struct ReportOptions {
  bool judge_latency = false;  // else ttft, ttft_growth and decode are not judged
  bool strict = false;         // a rate passes only with the far end of its interval
  int repeats = 1;
};

/// Takes the records of a run in the order of the recipe's cases, repeats of a case after each other; memory grows with
/// numbers, not with texts.
class ReportBuilder {
 public:
  explicit ReportBuilder(const Recipe& recipe, ReportOptions options = {});
  ~ReportBuilder();
  ReportBuilder(ReportBuilder&&) noexcept;

  void add(const Case& one, const CaseRecord& record);
  /// A case of which there is no record: a failure of all its gates.
  void add_missing(const Case& one);
  Report finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// report.json without its conversations; recipes/gate/report.schema.json describes both.
Json to_json(const Report& report);
/// An element of report.json's conversations.
Json conversation_json(const CaseRecord& record);

/// Tables for people: gates with their intervals and worst cases, categories, latency.
std::string to_text(const Report& report);

/// Everything that was found in a play and all that it lacked, a line each; empty where there is nothing.
std::string findings_text(const CaseRecord& record);

}  // namespace nibble::gate

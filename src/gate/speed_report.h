// What a speed run found, made of its records alone: spreads of times by point, with intervals and drift; growth over a
// conversation; and a few figures that say it in short.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gate/report.h"
#include "gate/speed_bench.h"

namespace nibble::gate {

/// Values in the order in which they were measured.
struct Timing {
  Distribution spread;
  Interval median = {0, 0};  // 95 %, bootstrap
  double drift = 0;          // median of the last third by that of the first, minus 1; 0 for fewer than 9 values

  bool drifts() const;  // by more than kDriftLimit either way
};
inline constexpr double kDriftLimit = 0.1;

Timing timing(const std::vector<double>& values);
/// Of groups whose values belong together, such as the tokens of a reply. Drift is that of the groups' medians.
Timing timing_of_groups(std::vector<std::vector<double>> groups);

/// Times between the tokens of the answer: the gap before each delta but the first, divided by the tokens in a delta.
/// That number is the mean one, max(1, (completion_tokens - reasoning_tokens) / deltas), and 1 where the two counts
/// differ by one at most or the server does not count. Deltas that arrive together are kept: they make gaps of 0.
std::vector<double> between_tokens_ms(const StreamedReply& reply);

/// The replies that differ in nothing that matters. Token counts are medians, -1 where the server does not say.
struct SpeedPoint {
  Sweep sweep = Sweep::preparation;
  int64_t size = 0;
  bool warm = false;
  int64_t failed = 0;
  std::string why = {};  // of the first that failed
  double prompt_tokens = -1, cached_tokens = -1, completion_tokens = -1;
  Timing headers_ms, ttft_ms, ttfat_ms, between_tokens_ms, decode_tok_s, reply_ms;
  Distribution server_prompt_ms, server_decode_tok_s;  // what the server says of itself (`timings`)
  // From the first request's begin to the last one's end:
  double tok_s = 0;      // tokens of all replies by that time
  double in_flight = 0;  // requests, on average
};

/// "512 tokens, known prefix".
std::string title(const SpeedPoint& point);

struct Growth {
  Timing early, late, all;  // TTFAT of turns 2-4, 16-20, and from 2 on, ms
  double ratio = 0;         // of the medians of late and early; 0: not measured
  Interval interval = {0, 0};
};

/// A number that a run comes down to.
struct SpeedFigure {
  std::string id, what, unit;  // "ttfat_warm_512", "first token of an answer, 512 tokens, known prefix", "ms"
  int64_t n = 0;
  double value = 0;
  std::optional<Interval> interval = {};
  std::optional<double> p95 = {};
};

struct SpeedReport {
  Json run = Json::object();             // what was run: model, server, parameters, times
  bool complete = true;                  // false: stopped before the end
  std::optional<double> first_ttfat_ms;  // of the very first request
  std::vector<SpeedPoint> points;        // by sweep, in the order measured
  Growth growth;
  std::vector<SpeedFigure> figures;
  std::vector<std::string>
      remarks;  // what a reader must know: skipped, failed, drifting, cached where it should not be
  int64_t requests = 0, failed = 0;

  std::vector<const SpeedPoint*> of(Sweep sweep) const;
};

SpeedReport speed_report(const SpeedRun& run);

/// bench.json without its records: {schema, run, complete, first_ttfat_ms, figures, context, conversation, growth,
/// concurrency, output, remarks, infra}. A timing is {n, p50, p95, p99, max, ci, drift}.
Json to_json(const SpeedReport& report);
/// An element of bench.json's records.
Json to_json(const SpeedRecord& record);

/// The tables of a report, for the terminal and for the page. Cells are text; the first column says what the row is.
struct SpeedTable {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};
/// Without `all`, the columns that matter most.
std::vector<SpeedTable> speed_tables(const SpeedReport& report, bool all);

/// bench.json in a folder that is there: the report with "records". It appears when it is complete.
Status write_speed_json(const Path& file, const SpeedReport& report, const SpeedRun& run);

}  // namespace nibble::gate

#include "gate/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gate/gate_unit.h"
#include "text/words.h"

namespace nibble::gate {
namespace {

constexpr size_t kWorst = 3;

double rate(int64_t k, int64_t n) {
  return n == 0 ? 0 : static_cast<double>(k) / static_cast<double>(n);
}

// Why a case did not pass, in a line.
std::string reason(const CaseRecord& record) {
  if (!record.error.empty()) return record.error;
  for (size_t i = 0; i < record.turns.size(); ++i) {
    for (const Failure& failure : record.turns[i].failures) {
      return fmt::format("turn {}: {}: {}", i + 1, failure.what, failure.detail);
    }
  }
  return "not played";
}

void count(Tally& tally, const CaseRecord& record) {
  tally.cases += 1;
  tally.passed += record.passed();
  tally.with_manners += record.clean();
  tally.thinks += has_family(record, "think") || has_family(record, "hidden_thinking");
  tally.markdown += has_family(record, "md");
  tally.asks += has_family(record, "confirm");
}

// A gate while records come in.
struct GateCount {
  Gate gate;
  std::string_view family;           // of a leak gate
  int64_t k = 0, n = 0;              // hits of replies, or passes of cases
  int64_t cases = 0;                 // that list it
  std::string lacking;               // what the server lacks that a case of it needs
  std::vector<double> case_passes;   // of each case over its repeats,
  std::vector<int64_t> case_counts;  // and of how many
  std::vector<std::string> failures;
  std::vector<std::pair<std::string, std::string>> worst;

  void fail(const std::string& id, std::string what) {
    if (failures.empty() || failures.back() != id) failures.push_back(id);
    if (worst.size() < kWorst) worst.emplace_back(id, std::move(what));
  }
};

}  // namespace

const char* name(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::fail:
      return "fail";
    case Verdict::inconclusive:
      return "inconclusive";
    case Verdict::not_judged:
      return "not_judged";
  }
  return "";
}

Distribution distribution(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  Distribution spread{.n = static_cast<int64_t>(values.size()),
                      .p50 = sorted_percentile(values, 50),
                      .p95 = sorted_percentile(values, 95),
                      .p99 = sorted_percentile(values, 99),
                      .max = values.back()};
  for (double& value : values) value = std::abs(value - spread.p50);
  std::sort(values.begin(), values.end());
  spread.mad = sorted_percentile(values, 50);
  return spread;
}

int Report::exit_code() const {
  if (errors > 0) return 2;
  return std::any_of(gates.begin(), gates.end(), [](const GateResult& result) {
    return !result.gate.report_only && (result.verdict == Verdict::fail || result.verdict == Verdict::inconclusive);
  });
}

struct ReportBuilder::State {
  ReportOptions options;
  std::vector<GateCount> gates;
  std::string last_case;
  Report report;
  std::map<std::string, Tally> categories;
  std::vector<double> ttft, ttfat, between, decode, reply, warm, early, late;
  std::vector<std::vector<double>> by_turn;
  int64_t texts = 0, words = 0, tokens = 0;

  void add(const Case& one, const CaseRecord& record) {
    const bool repeat = last_case == one.id;
    last_case = one.id;
    if (!record.lacking.empty()) return add_lacking(one, record);
    count(report.overall, record);
    Tally& tally = categories[one.category];
    tally.category = one.category;
    count(tally, record);
    report.errors += !record.error.empty();
    report.retries += record.retries;
    for (GateCount& gate : gates) add_to_gate(gate, one, record, repeat);
    for (size_t i = 0; i < record.turns.size(); ++i) add_turn(one.id, record.turns[i], i);
  }

  // Neither passed nor failed: what would judge it cannot be said of this server.
  void add_lacking(const Case& one, const CaseRecord& record) {
    ++report.lacking[record.lacking];
    for (GateCount& gate : gates) {
      if (std::find(one.gates.begin(), one.gates.end(), gate.gate.id) != one.gates.end()) gate.lacking = record.lacking;
    }
  }

  void add_to_gate(GateCount& gate, const Case& one, const CaseRecord& record, bool repeat) {
    const bool listed = std::find(one.gates.begin(), one.gates.end(), gate.gate.id) != one.gates.end();
    gate.cases += listed && !repeat;
    if (!gate.family.empty()) return add_leaks(gate, listed, record);
    if (!listed) return;
    const Share share = share_of(gate.gate.id, one, record);
    if (share.n == 0) return;
    if (!repeat) {
      gate.case_passes.push_back(0);
      gate.case_counts.push_back(0);
    }
    gate.n += share.n;
    gate.k += share.k;
    gate.case_passes.back() += static_cast<double>(share.k);
    gate.case_counts.back() += share.n;
    if (share.k < share.n) gate.fail(record.id, reason(record));
  }

  // A case that lists the gate and fails counts as a reply with a hit: what was not said cannot prove silence.
  static void add_leaks(GateCount& gate, bool listed, const CaseRecord& record) {
    bool hit = false;
    for (const PlayedTurn& turn : record.turns) {
      for (const PlayedMessage& message : turn.messages) {
        const Anomaly* found = find_family(message, gate.family);
        gate.n += 1;
        gate.k += found != nullptr;
        if (found != nullptr) gate.fail(record.id, fmt::format("{}: {}", found->id, found->snippet));
        hit = hit || found != nullptr;
      }
    }
    if (!listed || record.passed() || hit) return;
    gate.n += 1;
    gate.k += 1;
    gate.fail(record.id, reason(record));
  }

  void add_findings(const std::string& case_id, const std::vector<Anomaly>& anomalies) {
    for (const Anomaly& anomaly : anomalies) {
      if (anomaly.suppressed.empty()) {
        ++report.anomalies[anomaly.id];
        continue;
      }
      if (report.suppressed.empty() || report.suppressed.back().case_id != case_id ||
          report.suppressed.back().detector != anomaly.id) {
        report.suppressed.push_back({case_id, anomaly.id, anomaly.suppressed});
      }
      ++report.suppressed.back().hits;
    }
  }

  void add_turn(const std::string& case_id, const PlayedTurn& turn, size_t index) {
    add_findings(case_id, turn.anomalies);
    for (size_t i = 0; i < turn.messages.size(); ++i) {
      const PlayedMessage& message = turn.messages[i];
      add_findings(case_id, message.anomalies);
      ++report.replies;
      add_times(message.said, index, i == 0);
      if (!message.said.reply.calls.empty()) continue;
      ++texts;
      words += static_cast<int64_t>(text::words(message.said.reply.content).size());
      tokens += std::max<int64_t>(0, message.said.usage.completion_tokens);
    }
  }

  void add_times(const StreamedReply& said, size_t turn, bool first_of_turn) {
    const ReplyTimes& times = said.times;
    if (times.first_chunk_ms >= 0) ttft.push_back(times.first_chunk_ms);
    if (times.end_ms >= 0) reply.push_back(times.end_ms);
    if (const double speed = said.decode_tok_s(); speed > 0) {
      decode.push_back(speed);
      between.push_back(1e3 / speed);
    }
    if (times.first_answer_ms < 0) return;
    ttfat.push_back(times.first_answer_ms);
    if (!first_of_turn) return;
    if (by_turn.size() <= turn) by_turn.resize(turn + 1);
    by_turn[turn].push_back(times.first_answer_ms);
    if (turn == 0) return;
    warm.push_back(times.first_answer_ms);
    if (turn >= 1 && turn <= 3) early.push_back(times.first_answer_ms);
    if (turn >= 15 && turn <= 19) late.push_back(times.first_answer_ms);
  }

  GateResult judge(GateCount& count) const {
    GateResult result;
    result.gate = count.gate;
    result.k = count.k;
    result.n = count.n;
    result.failures = std::move(count.failures);
    result.worst = std::move(count.worst);
    if (is_latency_gate(count.gate.id)) {
      judge_latency(result);
      return result;
    }
    result.value = count.gate.metric == Metric::count ? static_cast<double>(count.k) : rate(count.k, count.n);
    double judged = result.value;
    if (count.gate.metric == Metric::rate) {
      const bool groups = options.repeats > 1 || counts_instructions(count.gate.id);
      const bool clustered = groups && !count.case_passes.empty();
      result.interval =
          clustered ? ratio_bootstrap_95(count.case_passes, count.case_counts) : wilson_95(count.k, count.n);
      const bool at_least = count.gate.bound == Bound::at_least;
      result.proved = count.gate.passes(at_least ? result.interval.low : result.interval.high);
      if (options.strict) judged = at_least ? result.interval.low : result.interval.high;
    }
    if (!count.lacking.empty()) {
      result.why = "the server lacks " + count.lacking;
    } else if (count.cases < count.gate.min_cases || count.n == 0) {
      result.verdict = Verdict::inconclusive;
      result.why = count.n == 0 ? "no case of it was played"
                                : fmt::format("{} cases, {} are needed", count.cases, count.gate.min_cases);
    } else {
      result.verdict = count.gate.passes(judged) ? Verdict::pass : Verdict::fail;
    }
    return result;
  }

  void judge_latency(GateResult& result) const {
    const Latency& latency = report.latency;
    const std::string& id = result.gate.id;
    const Distribution& spread = id == "decode" ? latency.decode_tok_s : latency.warm_ttfat_ms;
    result.n = spread.n;
    if (id == "ttft_growth") {
      result.value = latency.growth;
      result.n = latency.growth > 0 ? 1 : 0;
    } else {
      result.value = result.gate.metric == Metric::p95 ? spread.p95 : spread.p50;
    }
    if (!options.judge_latency) {
      result.why = "latency is judged on the recipe's hardware (--hardware), or with --judge-latency";
    } else if (result.n == 0) {
      result.verdict = Verdict::inconclusive;
      result.why = id == "ttft_growth" ? "no conversation of 20 turns" : "no reply was timed";
    } else {
      result.verdict = result.gate.passes(result.value) ? Verdict::pass : Verdict::fail;
    }
  }
};

ReportBuilder::ReportBuilder(const Recipe& recipe, ReportOptions options) : state_(std::make_unique<State>()) {
  state_->options = options;
  state_->report.overall.category = "overall";
  for (const Gate& gate : recipe.gates) {
    GateCount& count = state_->gates.emplace_back();
    count.gate = gate;
    count.family = leak_family(gate.id);
  }
}
ReportBuilder::~ReportBuilder() = default;
ReportBuilder::ReportBuilder(ReportBuilder&&) noexcept = default;

void ReportBuilder::add(const Case& one, const CaseRecord& record) {
  state_->add(one, record);
}

void ReportBuilder::add_missing(const Case& one) {
  CaseRecord nothing;
  nothing.id = one.id;
  nothing.category = one.category;
  state_->add(one, nothing);
  ++state_->report.missing;
}

Report ReportBuilder::finish() {
  State& state = *state_;
  Report& report = state.report;
  Latency& latency = report.latency;
  latency.ttft_ms = distribution(std::move(state.ttft));
  latency.ttfat_ms = distribution(std::move(state.ttfat));
  latency.between_tokens_ms = distribution(std::move(state.between));
  latency.decode_tok_s = distribution(std::move(state.decode));
  latency.reply_ms = distribution(std::move(state.reply));
  latency.warm_ttfat_ms = distribution(std::move(state.warm));
  for (std::vector<double>& turn : state.by_turn) latency.by_turn.push_back(distribution(std::move(turn)));
  if (!state.early.empty() && !state.late.empty()) {
    latency.growth = distribution(std::move(state.late)).p50 / distribution(std::move(state.early)).p50;
  }
  for (GateCount& count : state.gates) report.gates.push_back(state.judge(count));
  for (auto& item : state.categories) report.categories.push_back(std::move(item.second));
  report.words_mean = rate(state.words, state.texts);
  report.tokens_mean = rate(state.tokens, state.texts);
  return std::move(report);
}

}  // namespace nibble::gate

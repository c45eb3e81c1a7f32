#include <fmt/format.h>

#include <algorithm>

#include "gate/report.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

constexpr size_t kSnippetBytes = 140;
constexpr size_t kNameWidth = 18;  // at least

double percent(int64_t k, int64_t n) {
  return n == 0 ? 0 : 100 * static_cast<double>(k) / static_cast<double>(n);
}

std::string one_line(std::string_view text) {
  std::string out(text::clipped(text, kSnippetBytes));
  for (char& c : out) c = c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  return out.size() < text.size() ? out + "…" : out;
}

std::string line(const Tally& tally, size_t width) {
  const Interval interval = tally.interval();
  return fmt::format("{:<{}}{:>5}/{:<5}{:>5.1f} %  {:>5.1f} … {:>5.1f}{:>9.1f} %{:>8}{:>10}{:>6}\n", tally.category,
                     width, tally.passed, tally.cases, percent(tally.passed, tally.cases), 100 * interval.low,
                     100 * interval.high, percent(tally.with_manners, tally.cases), tally.thinks, tally.markdown,
                     tally.asks);
}

std::string line(const GateResult& result, size_t width) {
  const Gate& gate = result.gate;
  const char* op = gate.bound == Bound::at_least ? ">=" : "<=";
  std::string out = fmt::format("{:<{}}", gate.id, width);
  if (gate.metric == Metric::rate) {
    out += fmt::format("{:>5}/{:<5}{:>5.1f} %  {:>5.1f} … {:>5.1f}   {} {:<5.3g} %", result.k, result.n,
                       100 * result.value, 100 * result.interval.low, 100 * result.interval.high, op,
                       100 * gate.threshold);
  } else {
    out += fmt::format("{:>11}{:>7.4g}{:>18}{} {:<7.4g}", "", result.value, "", op, gate.threshold);
  }
  out += fmt::format("  {}{}\n", name(result.verdict), gate.report_only ? " (report only)" : "");
  if (!result.why.empty() && result.verdict == Verdict::inconclusive) out += fmt::format("    {}\n", result.why);
  if (result.verdict == Verdict::pass && result.worst.empty()) return out;
  for (const auto& [id, what] : result.worst) out += fmt::format("    {}: {}\n", id, one_line(what));
  return out;
}

// Rates that pass, with too few cases to say that the true rate does.
std::string unproved(const Report& report) {
  std::string text;
  for (const GateResult& result : report.gates) {
    const Gate& gate = result.gate;
    const bool at_least = gate.bound == Bound::at_least;
    const double least = at_least ? gate.threshold : 1 - gate.threshold;  // share of what is right
    const bool provable = gate.metric == Metric::rate && !gate.report_only && least < 1;
    if (result.verdict != Verdict::pass || result.proved || !provable) continue;
    const int64_t failures = at_least ? result.n - result.k : result.k;
    text += fmt::format("{}{} ({} with {} failed would)", text.empty() ? "passed, but by too few to prove it: " : ", ",
                        gate.id, trials_needed(least, failures), failures);
  }
  return text.empty() ? text : text + "\n";
}

void explain(std::string& text, const std::string& where, const std::vector<Anomaly>& anomalies) {
  for (const Anomaly& anomaly : anomalies) {
    text += fmt::format("{}: {}", where, anomaly.id);
    if (anomaly.begin >= 0) text += fmt::format(" at {}-{}", anomaly.begin, anomaly.end);
    if (anomaly.warning) text += " (warning)";
    if (!anomaly.suppressed.empty()) text += fmt::format(" (excused: {})", anomaly.suppressed);
    text += fmt::format("{}{}\n", anomaly.snippet.empty() ? "" : ": ", one_line(anomaly.snippet));
  }
}

}  // namespace

std::string findings_text(const CaseRecord& record) {
  std::string text;
  const std::string play = record.repeat > 1 ? fmt::format("{} #{}", record.id, record.repeat) : record.id;
  for (size_t i = 0; i < record.turns.size(); ++i) {
    const std::string where = fmt::format("{}, turn {}", play, i + 1);
    for (const PlayedMessage& message : record.turns[i].messages) explain(text, where, message.anomalies);
    explain(text, where, record.turns[i].anomalies);
    for (const Failure& failure : record.turns[i].failures) {
      text += fmt::format("{}: failed {}: {}\n", where, failure.what, one_line(failure.detail));
    }
  }
  if (!record.error.empty()) text += fmt::format("{}: no answer: {}\n", play, one_line(record.error));
  return text;
}

std::string to_text(const Report& report) {
  size_t width = kNameWidth;
  for (const GateResult& result : report.gates) width = std::max(width, result.gate.id.size() + 1);
  for (const Tally& tally : report.categories) width = std::max(width, tally.category.size() + 1);
  std::string text;
  if (!report.gates.empty()) {
    text += fmt::format("{:<{}}{:>11}{:>7}  {:>13}   {}\n", "gate", width, "", "", "95 % interval", "threshold");
    for (const GateResult& result : report.gates) text += line(result, width);
    text += unproved(report) + "\n";
  }
  text += fmt::format("{:<{}}{:>11}{:>7}  {:>13}{:>11}{:>8}{:>10}{:>6}\n", "category", width, "passed", "rate",
                      "95 % interval", "w/ manners", "thinks", "markdown", "asks");
  for (const Tally& tally : report.categories) text += line(tally, width);
  text += line(report.overall, width);
  const Latency& latency = report.latency;
  text += fmt::format("\n{} replies of {:.1f} words; first token of an answer {:.0f} ms (p95 {:.0f}), {:.1f} tok/s\n",
                      report.replies, report.words_mean, latency.ttfat_ms.p50, latency.ttfat_ms.p95,
                      latency.decode_tok_s.p50);
  if (!report.anomalies.empty()) {
    text += "found:";
    for (const auto& [id, hits] : report.anomalies) text += fmt::format(" {} {}", id, hits);
    text += "\n";
  }
  if (!report.suppressed.empty()) {
    text += "excused:";
    for (const auto& [case_id, detector, reason, hits] : report.suppressed) {
      text += fmt::format(" {} in {} ({})", detector, case_id, reason);
    }
    text += "\n";
  }
  for (const auto& [what, plays] : report.lacking) {
    text += fmt::format("{} cases not judged: the server lacks {}\n", plays, what);
  }
  if (report.errors + report.missing > 0) {
    text += fmt::format("{} cases got no answer from the server, {} were not played\n", report.errors, report.missing);
  }
  return text;
}

}  // namespace nibble::gate

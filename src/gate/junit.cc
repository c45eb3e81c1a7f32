#include "gate/junit.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "gate/gate_unit.h"
#include "gate/markup.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

constexpr size_t kMaxTextBytes = 4096;  // of one text in a failure

struct Suite {
  std::string name;
  const GateResult* gate = nullptr;  // absent: "other"
  std::vector<const Case*> cases;
  bool has_verdict = false;  // a test of the gate as a whole
  int64_t tests = 0, failures = 0, errors = 0, skipped = 0;
};

std::string clipped(const std::string& text) {
  const std::string_view start = text::clipped(text, kMaxTextBytes);
  return start.size() == text.size() ? text : std::string(start) + "…";
}

void add_findings(std::string& text, const std::vector<Anomaly>& anomalies) {
  for (const Anomaly& anomaly : anomalies) {
    text += fmt::format("  found {}{}: {}\n", anomaly.id,
                        !anomaly.suppressed.empty() ? " (excused)"
                        : anomaly.warning           ? " (warning)"
                                                    : "",
                        clipped(anomaly.snippet));
  }
}

// The turns in which something was wrong.
std::string explanation(const CaseRecord& record) {
  std::string text;
  for (size_t i = 0; i < record.turns.size(); ++i) {
    const PlayedTurn& turn = record.turns[i];
    std::string wrong;
    for (const Failure& failure : turn.failures)
      wrong += fmt::format("  {}: {}\n", failure.what, clipped(failure.detail));
    add_findings(wrong, turn.anomalies);
    for (const PlayedMessage& message : turn.messages) add_findings(wrong, message.anomalies);
    if (wrong.empty()) continue;
    text += fmt::format("turn {}\n  user: {}\n", i + 1, clipped(turn.user));
    for (const PlayedMessage& message : turn.messages) {
      const Reply& said = message.said.reply;
      if (!said.content.empty()) text += fmt::format("  reply: {}\n", clipped(said.content));
      for (const ToolCall& call : said.calls)
        text += fmt::format("  call: {} {}\n", call.name, clipped(call.arguments));
    }
    text += wrong;
  }
  return text;
}

// What did not pass, in a line, and its operator or detector.
std::pair<std::string, std::string> first_fault(const CaseRecord& record, const std::string& gate) {
  for (size_t i = 0; i < record.turns.size(); ++i) {
    for (const Failure& failure : record.turns[i].failures) {
      return {fmt::format("turn {}: {}: {}", i + 1, failure.what, clipped(failure.detail)), failure.what};
    }
  }
  for (size_t i = 0; i < record.turns.size(); ++i) {
    for (const PlayedMessage& message : record.turns[i].messages) {
      const Anomaly* found = find_family(message, leak_family(gate));
      if (found != nullptr)
        return {fmt::format("turn {}: {}: {}", i + 1, found->id, clipped(found->snippet)), found->id};
    }
  }
  return {"not played", "missing"};
}

double seconds(const CaseRecord& record) {
  double ms = 0;
  for (const PlayedTurn& turn : record.turns) {
    for (const PlayedMessage& message : turn.messages) ms += std::max(0.0, message.said.times.end_ms);
  }
  return ms / 1e3;
}

bool lists(const Case& one, const std::string& gate) {
  return std::find(one.gates.begin(), one.gates.end(), gate) != one.gates.end();
}

class Writer {
 public:
  Writer(OutputFile out, const Recipe& recipe, const Records& records, const Report& report, int repeats)
      : out_(std::move(out)), recipe_(recipe), records_(records), report_(report), repeats_(repeats) {}

  Status write() {
    make_suites();
    Suite all;
    for (Suite& suite : suites_) {
      NIBBLE_RETURN_IF_ERROR(count(suite));
      all.tests += suite.tests;
      all.failures += suite.failures;
      all.errors += suite.errors;
      all.skipped += suite.skipped;
    }
    NIBBLE_RETURN_IF_ERROR(
        out_.write(fmt::format("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\"{}>\n",
                               markup_text(recipe_.name), counts(all))));
    for (const Suite& suite : suites_) NIBBLE_RETURN_IF_ERROR(write(suite));
    NIBBLE_RETURN_IF_ERROR(out_.write(std::string_view("</testsuites>\n")));
    return out_.commit();
  }

 private:
  void make_suites() {
    std::unordered_set<std::string_view> known;
    for (const GateResult& result : report_.gates) {
      Suite& suite = suites_.emplace_back();
      suite.name = result.gate.id;
      suite.gate = &result;
      suite.has_verdict = result.verdict == Verdict::inconclusive || is_latency_gate(result.gate.id);
      known.insert(result.gate.id);
      if (is_latency_gate(result.gate.id)) continue;
      const std::unordered_set<std::string_view> failed(result.failures.begin(), result.failures.end());
      for (const Case& one : recipe_.cases) {
        if (lists(one, suite.name) || failed.contains(one.id)) suite.cases.push_back(&one);
      }
    }
    Suite other;
    other.name = "other";
    for (const Case& one : recipe_.cases) {
      const bool has_gate = std::any_of(one.gates.begin(), one.gates.end(),
                                        [&](const std::string& gate) { return known.contains(gate); });
      if (!has_gate) other.cases.push_back(&one);
    }
    if (!other.cases.empty()) suites_.push_back(std::move(other));
  }

  static bool passes(const Suite& suite, const Case& one, const CaseRecord& record) {
    return suite.gate == nullptr ? record.passed() : passes_gate(suite.name, one, record).value_or(true);
  }

  // The record, or one of nothing with an error.
  Result<CaseRecord> record_of(const Case& one, int repeat) const {
    auto record = records_.get(one.id, repeat);
    if (record.ok() || record.status().code() != Code::not_found) return record;
    CaseRecord nothing;
    nothing.error = "not played";
    return nothing;
  }

  Status count(Suite& suite) const {
    for (const Case* one : suite.cases) {
      for (int repeat = 1; repeat <= repeats_; ++repeat) {
        NIBBLE_TRY(record, record_of(*one, repeat));
        ++suite.tests;
        suite.errors += !record.error.empty();
        suite.skipped += !record.lacking.empty();
        suite.failures += record.error.empty() && record.lacking.empty() && !passes(suite, *one, record);
      }
    }
    if (!suite.has_verdict) return {};
    ++suite.tests;
    suite.skipped += suite.gate->verdict == Verdict::not_judged;
    suite.failures += suite.gate->verdict == Verdict::fail || suite.gate->verdict == Verdict::inconclusive;
    return {};
  }

  static std::string counts(const Suite& suite) {
    return fmt::format(" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"", suite.tests, suite.failures,
                       suite.errors, suite.skipped);
  }

  static std::string properties(const GateResult& result) {
    std::string out = "  <properties>\n";
    const auto add = [&](const char* name, const std::string& value) {
      out += fmt::format("   <property name=\"{}\" value=\"{}\"/>\n", name, markup_text(value));
    };
    add("verdict", name(result.verdict));
    add("value", fmt::format("{}", result.value));
    add("threshold", fmt::format("{} {}", result.gate.bound == Bound::at_least ? ">=" : "<=", result.gate.threshold));
    add("k", fmt::format("{}", result.k));
    add("n", fmt::format("{}", result.n));
    if (result.gate.metric == Metric::rate) {
      add("ci", fmt::format("{} {}", result.interval.low, result.interval.high));
    }
    if (!result.why.empty()) add("why", result.why);
    return out + "  </properties>\n";
  }

  Status write(const Suite& suite) {
    std::string head = fmt::format(" <testsuite name=\"{}\"{}>\n", markup_text(suite.name), counts(suite));
    if (suite.gate != nullptr) head += properties(*suite.gate);
    if (suite.has_verdict) head += verdict(suite);
    NIBBLE_RETURN_IF_ERROR(out_.write(head));
    for (const Case* one : suite.cases) {
      for (int repeat = 1; repeat <= repeats_; ++repeat) {
        NIBBLE_TRY(record, record_of(*one, repeat));
        NIBBLE_RETURN_IF_ERROR(out_.write(test(suite, *one, record, repeat)));
      }
    }
    return out_.write(std::string_view(" </testsuite>\n"));
  }

  std::string opening(const Suite& suite, const std::string& test) const {
    return fmt::format("  <testcase classname=\"{}.{}\" name=\"{}\"", markup_text(recipe_.name),
                       markup_text(suite.name), markup_text(test));
  }

  std::string verdict(const Suite& suite) const {
    const GateResult& result = *suite.gate;
    const std::string why = result.why.empty()
                                ? fmt::format("{} {} {}", result.value,
                                              result.gate.bound == Bound::at_least ? "<" : ">", result.gate.threshold)
                                : result.why;
    const std::string begin = opening(suite, "verdict");
    if (result.verdict == Verdict::pass) return begin + "/>\n";
    if (result.verdict == Verdict::not_judged) {
      return fmt::format("{}><skipped message=\"{}\"/></testcase>\n", begin, markup_text(why));
    }
    return fmt::format("{}><failure message=\"{}\" type=\"{}\"/></testcase>\n", begin, markup_text(why),
                       name(result.verdict));
  }

  std::string test(const Suite& suite, const Case& one, const CaseRecord& record, int repeat) const {
    const std::string name = repeats_ > 1 ? fmt::format("{} (repeat {})", one.id, repeat) : one.id;
    const std::string begin = fmt::format("{} time=\"{:.3f}\"", opening(suite, name), seconds(record));
    if (!record.error.empty()) {
      return fmt::format("{}><error message=\"{}\" type=\"infrastructure\"/></testcase>\n", begin,
                         markup_text(record.error));
    }
    if (!record.lacking.empty()) {
      return fmt::format("{}><skipped message=\"the server lacks {}\"/></testcase>\n", begin,
                         markup_text(record.lacking));
    }
    if (passes(suite, one, record)) return begin + "/>\n";
    const auto [what, type] = first_fault(record, suite.name);
    return fmt::format("{}>\n   <failure message=\"{}\" type=\"{}\">{}</failure>\n  </testcase>\n", begin,
                       markup_text(what), markup_text(type), markup_text(explanation(record)));
  }

  OutputFile out_;
  const Recipe& recipe_;
  const Records& records_;
  const Report& report_;
  const int repeats_;
  std::vector<Suite> suites_;
};

}  // namespace

Status write_junit(const Path& file, const Recipe& recipe, const Records& records, const Report& report, int repeats) {
  NIBBLE_TRY(out, OutputFile::create(file));
  return Writer(std::move(out), recipe, records, report, repeats).write();
}

}  // namespace nibble::gate

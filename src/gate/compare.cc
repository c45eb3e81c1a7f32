#include "gate/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "gate/chat_stream.h"
#include "gate/gate_unit.h"
#include "gate/json_schema.h"
#include "text/utf8.h"
#include "text/words.h"

namespace nibble::gate {
namespace {

std::string last_text(const PlayedTurn& turn) {
  return turn.last() == nullptr ? "" : turn.last()->said.reply.content;
}

bool called(const PlayedTurn& turn) {
  return std::any_of(turn.messages.begin(), turn.messages.end(),
                     [](const PlayedMessage& m) { return !m.said.reply.calls.empty(); });
}

// Everything the model said, so that two plays can be compared to the character.
std::string transcript(const CaseRecord& record) {
  std::string text;
  for (const PlayedTurn& turn : record.turns) {
    for (const PlayedMessage& message : turn.messages) {
      text += message.said.reply.content + '\n';
      for (const ToolCall& call : message.said.reply.calls) text += call.name + ' ' + call.arguments + '\n';
    }
  }
  return text;
}

// The schemas of the tools of a case, by name; those that JsonSchema does not understand are left out.
class ToolSchemas {
 public:
  explicit ToolSchemas(const Json& tools) {
    for (const Json& tool : tools) {
      const Json& function = member(tool, "function");
      const Json& name = member(function, "name");
      auto schema = JsonSchema::compile(member(function, "parameters"), "tools");
      if (name.is_string() && schema.ok()) schemas_.emplace(name.get<std::string>(), std::move(schema).value());
    }
  }

  bool allow(const ToolCall& call) const {
    const auto schema = schemas_.find(call.name);
    const auto arguments = parse_json(call.arguments, "arguments");
    if (schema == schemas_.end() || !arguments.ok()) return false;
    const auto violation = schema->second.violation(*arguments);
    return violation.ok() && !violation->has_value();
  }

 private:
  std::map<std::string, JsonSchema> schemas_;
};

void count_calls(const CaseRecord& record, const ToolSchemas& tools, int64_t& calls, int64_t& valid) {
  for (const PlayedTurn& turn : record.turns) {
    for (const PlayedMessage& message : turn.messages) {
      for (const ToolCall& call : message.said.reply.calls) {
        ++calls;
        valid += tools.allow(call);
      }
    }
  }
}

struct Words {
  int64_t words = 0, replies = 0;
  void add(const CaseRecord& record) {
    for (const PlayedTurn& turn : record.turns) {
      if (turn.last() == nullptr || !turn.last()->said.reply.calls.empty()) continue;
      words += static_cast<int64_t>(text::words(last_text(turn)).size());
      ++replies;
    }
  }
  double mean() const { return replies == 0 ? 0 : static_cast<double>(words) / static_cast<double>(replies); }
};

class Comparer {
 public:
  Comparer(const Recipe& recipe, ReportOptions options)
      : options_(options), build_a_(recipe, options), build_b_(recipe, options) {
    for (const Gate& gate : recipe.gates) {
      if (is_latency_gate(gate.id)) continue;
      result_.gates.emplace_back().gate = gate.id;
    }
  }

  Status add(const Case& one, const Records& a, const Records& b) {
    const ToolSchemas tools(one.tools);
    for (int repeat = 1; repeat <= options_.repeats; ++repeat) {
      const auto of_a = a.get(one.id, repeat), of_b = b.get(one.id, repeat);
      for (const auto* record : {&of_a, &of_b}) {
        if (!record->ok() && record->status().code() != Code::not_found) return record->status();
      }
      result_.lost_a += of_b.ok() && !of_a.ok();
      result_.lost_b += of_a.ok() && !of_b.ok();
      if (of_a.ok() && of_b.ok()) pair(one, tools, *of_a, *of_b);
    }
    return {};
  }

  Comparison finish() {
    std::vector<double> p;
    for (GateDelta& gate : result_.gates) {
      gate.p = mcnemar_exact(gate.only_a, gate.only_b);
      p.push_back(gate.p);
    }
    p = holm(std::move(p));
    result_.report_a = build_a_.finish();
    result_.report_b = build_b_.finish();
    for (size_t i = 0; i < result_.gates.size(); ++i) {
      GateDelta& gate = result_.gates[i];
      gate.p_holm = p[i];
      gate.verdict_a = verdict(result_.report_a, gate.gate);
      gate.verdict_b = verdict(result_.report_b, gate.gate);
    }
    result_.verbosity = words_a_.mean() == 0 ? 1 : words_b_.mean() / words_a_.mean();
    const int64_t wrong = trigger_only_a_ + trigger_only_b_;
    if (trigger_both_ + wrong > 0) {
      result_.trigger_f1 = 2.0 * static_cast<double>(trigger_both_) / static_cast<double>(2 * trigger_both_ + wrong);
    }
    return std::move(result_);
  }

 private:
  static Verdict verdict(const Report& report, const std::string& id) {
    const auto found = std::find_if(report.gates.begin(), report.gates.end(),
                                    [&](const GateResult& result) { return result.gate.id == id; });
    return found == report.gates.end() ? Verdict::not_judged : found->verdict;
  }

  void pair(const Case& one, const ToolSchemas& tools, const CaseRecord& a, const CaseRecord& b) {
    build_a_.add(one, a);
    build_b_.add(one, b);
    if (!a.lacking.empty() || !b.lacking.empty()) return;
    ++result_.pairs;
    for (GateDelta& gate : result_.gates) {
      const std::optional<bool> in_a = passes_gate(gate.gate, one, a), in_b = passes_gate(gate.gate, one, b);
      if (!in_a || !in_b) continue;
      ++gate.n;
      gate.a += *in_a;
      gate.b += *in_b;
      gate.only_a += *in_a && !*in_b;
      gate.only_b += *in_b && !*in_a;
      if (*in_a != *in_b) gate.flipped.push_back(one.id);
    }
    words_a_.add(a);
    words_b_.add(b);
    count_calls(a, tools, result_.calls_a, result_.valid_a);
    count_calls(b, tools, result_.calls_b, result_.valid_b);
    for (size_t i = 0; i < std::min(a.turns.size(), b.turns.size()); ++i) {
      const bool in_a = called(a.turns[i]), in_b = called(b.turns[i]);
      trigger_both_ += in_a && in_b;
      trigger_only_a_ += in_a && !in_b;
      trigger_only_b_ += in_b && !in_a;
    }
    const bool same = transcript(a) == transcript(b);
    result_.same_text += same;
    if (!same && a.passed() != b.passed() && result_.disagreements.size() < kMaxDisagreements) disagree(a, b);
  }

  void disagree(const CaseRecord& a, const CaseRecord& b) {
    Disagreement entry{.id = a.id, .passed_a = a.passed(), .passed_b = b.passed()};
    for (size_t i = 0; i < std::min(a.turns.size(), b.turns.size()); ++i) {
      entry.reply_a = last_text(a.turns[i]);
      entry.reply_b = last_text(b.turns[i]);
      if (entry.reply_a != entry.reply_b || a.turns[i].passed() != b.turns[i].passed()) break;
    }
    result_.disagreements.push_back(std::move(entry));
  }

  ReportOptions options_;
  ReportBuilder build_a_, build_b_;
  Comparison result_;
  Words words_a_, words_b_;
  int64_t trigger_both_ = 0, trigger_only_a_ = 0, trigger_only_b_ = 0;
};

Json side(const Report& report) {
  const Json json = to_json(report);
  return {{"overall", json["overall"]},
          {"latency", json["latency"]},
          {"verbosity", json["verbosity"]},
          {"anomalies", json["anomalies"]}};
}

double share(int64_t k, int64_t n) {
  return n == 0 ? 0 : static_cast<double>(k) / static_cast<double>(n);
}

}  // namespace

Result<Comparison> compare_runs(const Recipe& recipe, const Records& a, const Records& b,
                                const ReportOptions& options) {
  Comparer comparer(recipe, options);
  for (const Case& one : recipe.cases) NIBBLE_RETURN_IF_ERROR(comparer.add(one, a, b));
  return comparer.finish();
}

const char* name(Hardening hardening) {
  constexpr const char* kNames[] = {"NOT NEEDED", "FIXED", "PARTIAL", "NO", "WORSE"};
  return kNames[static_cast<size_t>(hardening)];
}

Hardening hardening_of(const GateDelta& delta) {
  constexpr double kSignificant = 0.05;
  if (delta.b < delta.a && delta.p < kSignificant) return Hardening::worse;
  if (delta.verdict_a == Verdict::pass) return Hardening::not_needed;
  if (delta.verdict_b == Verdict::pass) return Hardening::fixed;
  return delta.b > delta.a && delta.p < kSignificant ? Hardening::partial : Hardening::no;
}

Json to_json(const Comparison& comparison) {
  Json gates = Json::array(), disagreements = Json::array();
  for (const GateDelta& gate : comparison.gates) {
    gates.push_back({{"id", gate.gate},
                     {"n", gate.n},
                     {"a", share(gate.a, gate.n)},
                     {"b", share(gate.b, gate.n)},
                     {"delta", share(gate.b - gate.a, gate.n)},
                     {"only_a", gate.only_a},
                     {"only_b", gate.only_b},
                     {"p", gate.p},
                     {"p_holm", gate.p_holm},
                     {"verdict_a", name(gate.verdict_a)},
                     {"verdict_b", name(gate.verdict_b)},
                     {"flipped", gate.flipped}});
  }
  for (const Disagreement& entry : comparison.disagreements) {
    disagreements.push_back({{"id", entry.id},
                             {"passed_a", entry.passed_a},
                             {"passed_b", entry.passed_b},
                             {"reply_a", entry.reply_a},
                             {"reply_b", entry.reply_b}});
  }
  return {
      {"schema", 1},
      {"pairs", comparison.pairs},
      {"lost", {{"a", comparison.lost_a}, {"b", comparison.lost_b}}},
      {"gates", std::move(gates)},
      {"verbosity", comparison.verbosity},
      {"same_text", share(comparison.same_text, comparison.pairs)},
      {"trigger_f1", comparison.trigger_f1},
      {"valid_calls",
       {{"a", share(comparison.valid_a, comparison.calls_a)}, {"b", share(comparison.valid_b, comparison.calls_b)}}},
      {"a", side(comparison.report_a)},
      {"b", side(comparison.report_b)},
      {"disagreements", std::move(disagreements)}};
}

std::string to_text(const Comparison& comparison, const std::string& name_a, const std::string& name_b) {
  std::string text = fmt::format("A {}\nB {}\n\n{:<18}{:>6}{:>9}{:>9}{:>9}{:>7}{:>7}{:>9}{:>9}\n", name_a, name_b,
                                 "gate", "n", "A", "B", "B - A", "A only", "B only", "p", "Holm");
  for (const GateDelta& gate : comparison.gates) {
    if (gate.n == 0) continue;
    text += fmt::format("{:<18}{:>6}{:>7.1f} %{:>7.1f} %{:>+9.1f}{:>7}{:>7}{:>9.3g}{:>9.3g}\n", gate.gate, gate.n,
                        100 * share(gate.a, gate.n), 100 * share(gate.b, gate.n), 100 * share(gate.b - gate.a, gate.n),
                        gate.only_a, gate.only_b, gate.p, gate.p_holm);
  }
  const auto calls = [](int64_t valid, int64_t all) {
    return all == 0 ? std::string("none") : fmt::format("{:.1f} % of {}", 100 * share(valid, all), all);
  };
  const Latency &a = comparison.report_a.latency, &b = comparison.report_b.latency;
  text += fmt::format(
      "\nwords of a reply, B by A  {:.2f}\nsame replies              {:.1f} %\ncalls at the same turns   F1 {:.3f}\n",
      comparison.verbosity, 100 * share(comparison.same_text, comparison.pairs), comparison.trigger_f1);
  text += fmt::format("calls with valid arguments  A {}, B {}\n", calls(comparison.valid_a, comparison.calls_a),
                      calls(comparison.valid_b, comparison.calls_b));
  text += fmt::format("first token of an answer, p50 / p95 ms  A {:.0f} / {:.0f}, B {:.0f} / {:.0f}\n", a.ttfat_ms.p50,
                      a.ttfat_ms.p95, b.ttfat_ms.p50, b.ttfat_ms.p95);
  text += fmt::format("decode, p50 tok/s  A {:.1f}, B {:.1f}\n", a.decode_tok_s.p50, b.decode_tok_s.p50);
  if (comparison.lost_a + comparison.lost_b > 0) {
    text += fmt::format("not compared: {} plays that A lacks, {} that B lacks\n", comparison.lost_a, comparison.lost_b);
  }
  return text;
}

}  // namespace nibble::gate

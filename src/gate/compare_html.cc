#include <fmt/format.h>

#include <set>

#include "gate/gate_unit.h"
#include "gate/markup.h"
#include "gate/page.h"
#include "gate/report_html.h"

namespace nibble::gate {
namespace {

using Cells = std::vector<std::vector<std::string>>;

double share(int64_t k, int64_t n) {
  return n == 0 ? 0 : static_cast<double>(k) / static_cast<double>(n);
}

std::string verdict_text(Verdict verdict) {
  const char* look = verdict == Verdict::pass ? "good" : verdict == Verdict::not_judged ? "faint" : "bad";
  return fmt::format("<span class=\"{}\">{}</span>", look, verdict == Verdict::not_judged ? "–" : name(verdict));
}

std::string gates_section(const Comparison& comparison, bool hardened) {
  std::vector<std::string> head = {"*", "n", "A", "B", "B − A, points", "A only", "B only", "p", "Holm", "verdicts"};
  if (hardened) head.push_back("hardened prompt");
  Cells rows;
  for (const GateDelta& gate : comparison.gates) {
    if (gate.n == 0) continue;
    const auto flips = [&](int64_t count, const char* show) {
      return count == 0 ? "0" : filter_link(std::to_string(count), {{"gate", gate.gate}, {"show", show}});
    };
    std::vector<std::string> row = {filter_link(gate.gate, {{"gate", gate.gate}}),
                                    std::to_string(gate.n),
                                    percent_text(share(gate.a, gate.n)),
                                    percent_text(share(gate.b, gate.n)),
                                    fmt::format("{:+.1f}", 100 * share(gate.b - gate.a, gate.n)),
                                    flips(gate.only_a, "only_a"),
                                    flips(gate.only_b, "only_b"),
                                    fmt::format("{:.3g}", gate.p),
                                    fmt::format("{:.3g}", gate.p_holm),
                                    verdict_text(gate.verdict_a) + " → " + verdict_text(gate.verdict_b)};
    if (hardened) row.emplace_back(name(hardening_of(gate)));
    rows.push_back(std::move(row));
  }
  return "<h2>Gates</h2>\n" + cells_table(head, rows);
}

std::string calls_text(int64_t valid, int64_t all) {
  return all == 0 ? "none" : fmt::format("{:.1f} % of {}", 100 * share(valid, all), all);
}

std::string speech_section(const Comparison& comparison) {
  const Report &a = comparison.report_a, &b = comparison.report_b;
  Cells rows;
  const auto add = [&](const char* what, const std::string& of_a, const std::string& of_b) {
    rows.push_back({what, of_a, of_b});
  };
  const auto number = [](double value) { return fmt::format("{:.4g}", value); };
  add("plays that pass", percent_text(share(a.overall.passed, a.overall.cases)),
      percent_text(share(b.overall.passed, b.overall.cases)));
  add("with manners", percent_text(share(a.overall.with_manners, a.overall.cases)),
      percent_text(share(b.overall.with_manners, b.overall.cases)));
  add("words of a reply", number(a.words_mean), number(b.words_mean));
  add("tokens of a reply", number(a.tokens_mean), number(b.tokens_mean));
  add("calls with valid arguments", calls_text(comparison.valid_a, comparison.calls_a),
      calls_text(comparison.valid_b, comparison.calls_b));
  add("first token of an answer, p50 ms", number(a.latency.ttfat_ms.p50), number(b.latency.ttfat_ms.p50));
  add("first token of an answer, p95 ms", number(a.latency.ttfat_ms.p95), number(b.latency.ttfat_ms.p95));
  add("decode, p50 tok/s", number(a.latency.decode_tok_s.p50), number(b.latency.decode_tok_s.p50));
  return "<div class=\"grid\"><div>\n<h2>Verbosity and latency</h2>\n" + cells_table({"*", "A", "B"}, rows) +
         "</div><div>\n" +
         ttfat_plot({{"A, median", by_turn(a.latency, &Distribution::p50)},
                     {"B, median", by_turn(b.latency, &Distribution::p50)}}) +
         "</div></div>\n";
}

std::string findings_section(const Comparison& comparison) {
  const auto &a = comparison.report_a.anomalies, &b = comparison.report_b.anomalies;
  std::set<std::string> ids;
  for (const auto* side : {&a, &b}) {
    for (const auto& item : *side) ids.insert(item.first);
  }
  if (ids.empty()) return "";
  const auto hits = [](const std::map<std::string, int64_t>& side, const std::string& id) {
    const auto found = side.find(id);
    return std::to_string(found == side.end() ? 0 : found->second);
  };
  Cells rows;
  for (const std::string& id : ids) rows.push_back({filter_link(id, {{"found", id}}), hits(a, id), hits(b, id)});
  return "<h2>Findings</h2>\n" + cells_table({"*", "A", "B"}, rows);
}

std::string sections(const Recipe& recipe, const ComparedSides& sides, const Comparison& comparison) {
  std::string text = fmt::format("<h1>{}</h1>\n<p class=\"lead\">A {}<br/>B {}</p>\n",
                                 markup_text(recipe.title.empty() ? recipe.name : recipe.title),
                                 markup_text(sides.name_a), markup_text(sides.name_b));
  text += fmt::format(
      "<p>{} plays in both: {} say the same to the character; B says {:.2f} words for one of A; calls at the same "
      "turns, "
      "F1 {:.3f}</p>\n",
      comparison.pairs, percent_text(share(comparison.same_text, comparison.pairs)), comparison.verbosity,
      comparison.trigger_f1);
  if (comparison.lost_a + comparison.lost_b > 0) {
    text += fmt::format("<p class=\"bad\">not compared: {} plays that A lacks, {} that B lacks</p>\n",
                        comparison.lost_a, comparison.lost_b);
  }
  return text + gates_section(comparison, sides.hardened) + speech_section(comparison) + findings_section(comparison) +
         "<div class=\"grid\"><div>\n<h2>A</h2>\n" + run_facts(comparison.report_a.run) + "</div><div>\n<h2>B</h2>\n" +
         run_facts(comparison.report_b.run) + "</div></div>\n" + data_block("id=\"report\"", to_json(comparison));
}

// Whether a reader has something to see: another verdict, of the play or of a gate, or another text.
bool differ(const Json& row, const Json& a, const Json& b) {
  if (row["sides"][0] != row["sides"][1] || a["turns"].size() != b["turns"].size()) return true;
  for (size_t i = 0; i < a["turns"].size(); ++i) {
    for (const char* key : {"reply", "reasoning", "calls"}) {
      if (a["turns"][i][key] != b["turns"][i][key]) return true;
    }
  }
  return false;
}

}  // namespace

Status write_compare_html(const Path& file, const Recipe& recipe, const ComparedSides& sides,
                          const Comparison& comparison, int repeats) {
  NIBBLE_TRY(page, Page::create(file, fmt::format("Gate comparison: {}", recipe.name)));
  NIBBLE_RETURN_IF_ERROR(page.add(sections(recipe, sides, comparison)));
  NIBBLE_RETURN_IF_ERROR(page.begin_plays("Plays that differ", {sides.name_a, sides.name_b}));
  for (const Case& one : recipe.cases) {
    for (int repeat = 1; repeat <= repeats; ++repeat) {
      const auto a = sides.a.get(one.id, repeat), b = sides.b.get(one.id, repeat);
      for (const auto* record : {&a, &b}) {
        if (!record->ok() && record->status().code() != Code::not_found) return record->status();
      }
      if (!a.ok() || !b.ok()) continue;
      Json row = row_json(recipe, one, {&*a, &*b}), of_a = conversation_json(*a), of_b = conversation_json(*b);
      if (!differ(row, of_a, of_b)) continue;
      NIBBLE_RETURN_IF_ERROR(page.add_play(std::move(row), Json::array({std::move(of_a), std::move(of_b)})));
    }
  }
  return page.finish();
}

}  // namespace nibble::gate

#include "gate/report_html.h"

#include <fmt/format.h>

#include <algorithm>

#include "gate/gate_unit.h"
#include "gate/markup.h"
#include "gate/page.h"
#include "gate/run_files.h"
#include "text/utf8.h"

namespace nibble::gate {
namespace {

using Cells = std::vector<std::vector<std::string>>;

constexpr size_t kSnippetBytes = 200;

std::string snippet(const std::string& text) {
  const std::string_view start = text::clipped(text, kSnippetBytes);
  return markup_text(start) + (start.size() < text.size() ? "…" : "");
}

// From 0 to 1: the interval as a line, the rate as a dot, the threshold as a mark across.
std::string bar(double rate, Interval interval, double threshold) {
  constexpr double kWidth = 120, kEdge = 6;
  const auto x = [&](double value) { return kEdge + std::clamp(value, 0.0, 1.0) * (kWidth - 2 * kEdge); };
  return fmt::format(
      "<svg class=\"bar\" width=\"{0}\" height=\"16\" viewBox=\"0 0 {0} 16\" stroke=\"currentColor\">"
      "<line x1=\"{1:.1f}\" x2=\"{2:.1f}\" y1=\"8\" y2=\"8\" stroke-opacity=\".2\"/>"
      "<line x1=\"{3:.1f}\" x2=\"{4:.1f}\" y1=\"8\" y2=\"8\" stroke-width=\"3\" stroke-opacity=\".5\"/>"
      "<line x1=\"{5:.1f}\" x2=\"{5:.1f}\" y1=\"1\" y2=\"15\" stroke=\"#d64550\"/>"
      "<circle cx=\"{6:.1f}\" cy=\"8\" r=\"3.5\" fill=\"currentColor\" stroke=\"none\"/></svg>",
      kWidth, x(0), x(1), x(interval.low), x(interval.high), x(threshold), x(rate));
}

std::string verdict_cell(const GateResult& result) {
  const bool judged = result.verdict != Verdict::not_judged && !result.gate.report_only;
  const char* look = !judged ? "faint" : result.verdict == Verdict::pass ? "good" : "bad";
  const std::string text = result.gate.report_only                 ? "report only"
                           : result.verdict == Verdict::not_judged ? "not judged"
                                                                   : name(result.verdict);
  return fmt::format("<span class=\"{}\">{}</span>", look, text);
}

void add_gate(const GateResult& result, Cells& rows) {
  const Gate& gate = result.gate;
  const bool rate = gate.metric == Metric::rate;
  const char* op = gate.bound == Bound::at_least ? "≥" : "≤";
  const std::vector<std::pair<std::string, std::string>> filter = {{"gate", gate.id}, {"show", "failed"}};
  rows.push_back(
      {is_latency_gate(gate.id) ? markup_text(gate.id) : filter_link(gate.id, filter),
       rate ? fmt::format("{}/{}", result.k, result.n) : "",
       rate ? percent_text(result.value) : fmt::format("{:.4g}", result.value),
       rate ? bar(result.value, result.interval, gate.threshold) : "",
       rate ? fmt::format("{:.1f} … {:.1f}", 100 * result.interval.low, 100 * result.interval.high) : "",
       rate ? fmt::format("{} {:.4g} %", op, 100 * gate.threshold) : fmt::format("{} {:.4g}", op, gate.threshold),
       verdict_cell(result)});
  std::string about = result.why.empty() ? "" : fmt::format("<div>{}</div>", snippet(result.why));
  for (const auto& [id, what] : result.worst) {
    about += fmt::format("<div>{}: {}</div>", filter_link(id, {{"gate", gate.id}, {"open", id}}), snippet(what));
  }
  if (!about.empty()) rows.push_back({"<div class=\"worst\">" + about + "</div>"});
}

std::vector<std::string> tally_row(const Tally& tally, bool link) {
  const auto share = [&](int64_t k) {
    return percent_text(tally.cases == 0 ? 0 : static_cast<double>(k) / static_cast<double>(tally.cases));
  };
  const Interval interval = tally.interval();
  return {link ? filter_link(tally.category, {{"category", tally.category}}) : markup_text(tally.category),
          fmt::format("{}/{}", tally.passed, tally.cases),
          share(tally.passed),
          fmt::format("{:.1f} … {:.1f}", 100 * interval.low, 100 * interval.high),
          share(tally.with_manners),
          std::to_string(tally.thinks),
          std::to_string(tally.markdown),
          std::to_string(tally.asks)};
}

std::string lead(const Report& report) {
  int64_t judged = 0, failed = 0;
  for (const GateResult& result : report.gates) {
    if (result.gate.report_only || result.verdict == Verdict::not_judged) continue;
    ++judged;
    failed += result.verdict != Verdict::pass;
  }
  std::string text = failed > 0    ? fmt::format("{} of {} judged gates do not pass", failed, judged)
                     : judged == 0 ? "no gate was judged"
                                   : fmt::format("all {} judged gates pass", judged);
  if (report.errors > 0) text += fmt::format("; {} plays got no answer from the server", report.errors);
  if (report.missing > 0) text += fmt::format("; {} were not played", report.missing);
  const char* look = failed > 0 || report.errors + report.missing > 0 ? "bad" : judged == 0 ? "faint" : "good";
  return fmt::format("<p class=\"lead\"><span class=\"{}\">{}</span>: {} of {} plays pass, {} with manners</p>\n", look,
                     text, report.overall.passed, report.overall.cases, report.overall.with_manners);
}

std::string latency_section(const Latency& latency) {
  Cells rows;
  const auto add = [&](const char* what, const Distribution& spread) {
    std::vector<std::string> row = {what, std::to_string(spread.n)};
    for (const double value : {spread.p50, spread.p95, spread.p99, spread.max})
      row.push_back(fmt::format("{:.4g}", value));
    rows.push_back(std::move(row));
  };
  add("first chunk, ms", latency.ttft_ms);
  add("first token of an answer, ms", latency.ttfat_ms);
  add("the same, warm", latency.warm_ttfat_ms);
  add("between tokens, ms", latency.between_tokens_ms);
  add("decode, tok/s", latency.decode_tok_s);
  add("whole reply, ms", latency.reply_ms);
  std::string text =
      "<div class=\"grid\"><div>\n<h2>Latency</h2>\n" + cells_table({"*", "n", "p50", "p95", "p99", "max"}, rows);
  if (latency.growth > 0) {
    text +=
        fmt::format("<p>turns 16-20 take {:.2f} times as long to their first token as turns 2-4</p>\n", latency.growth);
  }
  return text + "</div><div>\n" +
         ttfat_plot({{"median", by_turn(latency, &Distribution::p50)}, {"p95", by_turn(latency, &Distribution::p95)}}) +
         "</div></div>\n";
}

std::string findings_section(const Report& report) {
  Cells rows;
  for (const auto& [id, hits] : report.anomalies)
    rows.push_back({filter_link(id, {{"found", id}}), std::to_string(hits)});
  std::string text =
      "<h2>Findings</h2>\n" + (rows.empty() ? "<p>nothing was found</p>\n" : cells_table({"*", "hits"}, rows));
  return text + fmt::format(
                    "<p class=\"faint\">{} replies; {:.1f} words and {:.1f} tokens in one that is text; {} "
                    "retries</p>\n",
                    report.replies, report.words_mean, report.tokens_mean, report.retries);
}

std::string sections(const Recipe& recipe, const Report& report) {
  std::string text = fmt::format("<h1>{}</h1>\n", markup_text(recipe.title.empty() ? recipe.name : recipe.title));
  text += lead(report);
  Cells gates, tallies;
  for (const GateResult& result : report.gates) add_gate(result, gates);
  for (const Tally& tally : report.categories) tallies.push_back(tally_row(tally, true));
  tallies.push_back(tally_row(report.overall, false));
  text += "<h2>Gates</h2>\n" + cells_table({"*", "", "rate", "", "95 % interval", "threshold", "verdict"}, gates) +
          "<h2>Categories</h2>\n" +
          cells_table({"*", "passed", "rate", "95 % interval", "with manners", "thinks", "markdown", "asks"}, tallies);
  return text + latency_section(report.latency) + findings_section(report) + "<h2>Run</h2>\n" + run_facts(report.run) +
         data_block("id=\"report\"", to_json(report));
}

}  // namespace

Status write_report_html(const Path& file, const Recipe& recipe, const Records& records, const Report& report,
                         int repeats) {
  NIBBLE_TRY(page, Page::create(file, fmt::format("Gate report: {}", recipe.name)));
  NIBBLE_RETURN_IF_ERROR(page.add(sections(recipe, report)));
  NIBBLE_RETURN_IF_ERROR(page.begin_plays("Transcripts", {recipe.name}));
  NIBBLE_RETURN_IF_ERROR(for_each_record(recipe, records, repeats, [&](const Case& one, const CaseRecord& record) {
    return page.add_play(row_json(recipe, one, {&record}), Json::array({conversation_json(record)}));
  }));
  return page.finish();
}

}  // namespace nibble::gate

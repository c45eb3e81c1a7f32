#include "gate/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "gate/chat_stream.h"
#include "gate/gate_unit.h"
#include "gate/markup.h"
#include "io/html_page.h"
#include "io/svg_plot.h"

namespace nibble::gate {
namespace {

constexpr size_t kPlaysPerBlock = 100;

std::string_view page_file(std::string_view path) {
  for (const EmbeddedFile& file : page_files()) {
    if (file.path == path) return file.text;
  }
  NIBBLE_CHECK(false);
  return {};
}

constexpr std::string_view kFilters = R"(<div class="filters">
<label>gate <select name="gate"></select></label>
<label>category <select name="category"></select></label>
<label>show <select name="show"></select></label>
<label>finding <select name="found"></select></label>
<label>text <input name="text" type="search" size="24"/></label>
</div>
<p class="faint"><output id="count"></output></p>
<noscript><p>Transcripts are shown by a script, which is switched off here. report.json has them, too.</p></noscript>
<div id="list"></div>
<p><button id="more" hidden="">Show more</button></p>
)";

// Letters and digits as they are; everything else as %XX.
std::string url_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : dump(value);
}

}  // namespace

Result<Page> Page::create(const Path& file, std::string_view title) {
  NIBBLE_TRY(out, OutputFile::create(file));
  Page page(std::move(out));
  NIBBLE_RETURN_IF_ERROR(page.add(fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src '{}'; base-uri 'none'; form-action 'none'\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n",
      csp_source(page_file("page.js")), markup_text(title), page_file("page.css"))));
  return page;
}

Status Page::begin_plays(std::string_view heading, const std::vector<std::string>& sides) {
  has_plays_ = true;
  return add(fmt::format("<h2 id=\"plays\">{}</h2>\n{}{}", heading, kFilters, data_block("id=\"sides\"", sides)));
}

Status Page::add_play(Json row, Json sides) {
  rows_.push_back(std::move(row));
  plays_.push_back(std::move(sides));
  return rows_.size() < kPlaysPerBlock ? Status() : write_block();
}

Status Page::write_block() {
  NIBBLE_RETURN_IF_ERROR(add(data_block("class=\"rows\"", rows_)));
  NIBBLE_RETURN_IF_ERROR(add(data_block("class=\"plays\"", plays_)));
  rows_ = plays_ = Json::array();
  return {};
}

Status Page::finish() {
  if (!rows_.empty()) NIBBLE_RETURN_IF_ERROR(write_block());
  if (has_plays_) NIBBLE_RETURN_IF_ERROR(add(fmt::format("<script>{}</script>\n", page_file("page.js"))));
  NIBBLE_RETURN_IF_ERROR(add("</body>\n</html>\n"));
  return out_.commit();
}

Json side_json(const Recipe& recipe, const Case& one, const CaseRecord& record) {
  Json fails = Json::array();
  for (const Gate& gate : recipe.gates) {
    if (!is_latency_gate(gate.id) && !passes_gate(gate.id, one, record).value_or(true)) fails.push_back(gate.id);
  }
  const char* verdict = !record.error.empty() ? "error"
                        : record.clean()      ? "clean"
                        : record.passed()     ? "passed"
                                              : "failed";
  return {{"verdict", verdict}, {"fails", std::move(fails)}};
}

Json row_json(const Recipe& recipe, const Case& one, const std::vector<const CaseRecord*>& sides) {
  std::set<std::string> found;
  std::vector<std::string> gates = one.gates;
  Json states = Json::array();
  for (const CaseRecord* record : sides) {
    states.push_back(side_json(recipe, one, *record));
    for (const Json& gate : states.back()["fails"]) {
      auto id = gate.get<std::string>();
      if (std::find(gates.begin(), gates.end(), id) == gates.end()) gates.push_back(std::move(id));
    }
    for (const PlayedTurn& turn : record->turns) {
      for (const Anomaly& anomaly : turn.anomalies) found.insert(anomaly.id);
      for (const PlayedMessage& message : turn.messages) {
        for (const Anomaly& anomaly : message.anomalies) found.insert(anomaly.id);
      }
    }
  }
  return {{"id", one.id},   {"repeat", sides[0]->repeat}, {"category", one.category}, {"gates", gates},
          {"found", found}, {"sides", std::move(states)}};
}

std::string cells_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  const auto look = [&](size_t column) { return head[column].starts_with("*") ? " class=\"text\"" : ""; };
  std::string out = "<div class=\"wide\"><table class=\"list\">\n<tr>";
  for (size_t i = 0; i < head.size(); ++i) {
    out += fmt::format("<th{}>{}</th>", look(i), head[i].starts_with("*") ? head[i].substr(1) : head[i]);
  }
  out += "</tr>\n";
  for (const std::vector<std::string>& row : rows) {
    if (row.size() == 1) {
      out += fmt::format("<tr class=\"about\"><td class=\"text\" colspan=\"{}\">{}</td></tr>\n", head.size(), row[0]);
      continue;
    }
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) out += fmt::format("<td{}>{}</td>", look(i), row[i]);
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string filter_link(std::string_view text, const std::vector<std::pair<std::string, std::string>>& filters) {
  std::string fragment;
  for (const auto& [name, value] : filters) {
    fragment += fmt::format("{}{}={}", fragment.empty() ? "" : "&amp;", name, url_encoded(value));
  }
  return fmt::format("<a href=\"#{}\">{}</a>", fragment, markup_text(text));
}

std::string percent_text(double rate) {
  return fmt::format("{:.1f} %", 100 * rate);
}

std::vector<std::pair<double, double>> by_turn(const Latency& latency, double Distribution::*value) {
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < latency.by_turn.size(); ++i) {
    if (latency.by_turn[i].n > 0) points.emplace_back(static_cast<double>(i + 1), latency.by_turn[i].*value);
  }
  return points;
}

std::string ttfat_plot(const std::vector<std::pair<std::string, std::vector<std::pair<double, double>>>>& series) {
  Plot plot{.title = "first token of an answer, ms", .x_label = "turn of the conversation"};
  size_t longest = 0;
  for (const auto& [label, points] : series) {
    longest = std::max(longest, points.size());
    plot.series.push_back({label, points});
  }
  return longest < 2 ? "" : "<figure>" + svg_plot(plot) + "</figure>\n";
}

std::string run_facts(const Json& run) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const char* key :
       {"recipe", "model", "endpoint", "started", "seconds", "repeats", "params", "seed", "machine", "nibble"}) {
    const Json* value = find_value(run, key);
    if (value == nullptr) continue;
    rows.emplace_back(key, key == std::string_view("seconds") && value->is_number()
                               ? fmt::format("{:.1f}", value->get<double>())
                               : plain(*value));
  }
  return html_facts(rows);
}

}  // namespace nibble::gate

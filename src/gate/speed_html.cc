#include "gate/speed_html.h"

#include <fmt/format.h>

#include "gate/markup.h"
#include "gate/page.h"
#include "io/svg_plot.h"

namespace nibble::gate {
namespace {

using Cells = std::vector<std::vector<std::string>>;
using Points = std::vector<std::pair<double, double>>;

std::string figures_table(const SpeedReport& report) {
  Cells rows;
  for (const SpeedFigure& figure : report.figures) {
    rows.push_back({markup_text(figure.what), std::to_string(figure.n),
                    fmt::format("{:.4g} {}", figure.value, figure.unit),
                    figure.interval ? fmt::format("{:.4g} … {:.4g}", figure.interval->low, figure.interval->high) : "",
                    figure.p95 ? fmt::format("{:.4g}", *figure.p95) : ""});
  }
  return cells_table({"*", "n", "median", "95 % interval", "p95"}, rows);
}

Points points_of(const std::vector<const SpeedPoint*>& points, bool warm, double (*value)(const SpeedPoint&)) {
  Points out;
  for (const SpeedPoint* point : points) {
    if (point->warm == warm && point->reply_ms.spread.n > 0) {
      out.emplace_back(static_cast<double>(point->size), value(*point));
    }
  }
  return out;
}

double ttfat_p50(const SpeedPoint& point) {
  return point.ttfat_ms.spread.p50;
}
double ttfat_p95(const SpeedPoint& point) {
  return point.ttfat_ms.spread.p95;
}
double decode_p50(const SpeedPoint& point) {
  return point.decode_tok_s.spread.p50;
}
double all_tok_s(const SpeedPoint& point) {
  return point.tok_s;
}

// A figure where there is a line to draw.
std::string figure(const Plot& plot) {
  return plot.series.front().points.size() < 2 ? "" : "<figure>" + svg_plot(plot) + "</figure>\n";
}

std::string plots(const SpeedReport& report) {
  const auto contexts = report.of(Sweep::context), turns = report.of(Sweep::conversation),
             clients = report.of(Sweep::concurrency);
  std::string out;
  out += figure({.title = "first token of an answer, ms",
                 .x_label = "tokens of the prompt",
                 .series = {{"new prefix", points_of(contexts, false, ttfat_p50)},
                            {"known prefix", points_of(contexts, true, ttfat_p50)}},
                 .log_y = true});
  out += figure({.title = "decode, tok/s",
                 .x_label = "tokens of the prompt",
                 .series = {{"median", points_of(contexts, false, decode_p50)}}});
  out +=
      figure({.title = "first token of an answer, ms",
              .x_label = "turn of the conversation",
              .series = {{"median", points_of(turns, false, ttfat_p50)}, {"p95", points_of(turns, false, ttfat_p95)}}});
  out += figure(
      {.title = "first token of an answer, ms",
       .x_label = "clients at once",
       .series = {{"median", points_of(clients, false, ttfat_p50)}, {"p95", points_of(clients, false, ttfat_p95)}}});
  out += figure({.title = "tokens per second",
                 .x_label = "clients at once",
                 .series = {{"all replies together", points_of(clients, false, all_tok_s)},
                            {"one reply, median", points_of(clients, false, decode_p50)}}});
  return "<div class=\"grid\">\n" + out + "</div>\n";
}

std::string lead(const SpeedReport& report) {
  std::string text = fmt::format("{} requests", report.requests);
  if (report.failed > 0) text += fmt::format("; <span class=\"bad\">{} failed</span>", report.failed);
  if (!report.complete) text += "; <span class=\"bad\">stopped before the end</span>";
  if (report.first_ttfat_ms) text += fmt::format("; the very first token came after {:.4g} ms", *report.first_ttfat_ms);
  return "<p class=\"lead\">" + text + "</p>\n";
}

std::string growth_text(const Growth& growth) {
  if (growth.ratio <= 0) return "";
  return fmt::format(
      "<p>turns 16-20 take {:.2f} times as long to their first token as turns 2-4 ({:.2f} … {:.2f}); the first turn is "
      "in neither</p>\n",
      growth.ratio, growth.interval.low, growth.interval.high);
}

// A median above its interval and p95: side by side they would make the tables wider than a screen.
std::string two_lines(const std::string& cell) {
  const size_t interval = cell.find(" [");
  if (interval == std::string::npos) return markup_text(cell);
  return fmt::format("{}<br/><span class=\"faint\">{}</span>", markup_text(cell.substr(0, interval)),
                     markup_text(cell.substr(interval + 1)));
}

std::string table_text(const SpeedTable& table, const SpeedReport& report) {
  std::vector<std::string> head = {"*"};  // for the first column, which is text
  head.insert(head.end(), table.head.begin() + 1, table.head.end());
  Cells rows;
  for (const std::vector<std::string>& row : table.rows) {
    std::vector<std::string>& cells = rows.emplace_back();
    cells.push_back("<span style=\"white-space: nowrap\">" + markup_text(row[0]) + "</span>");
    for (size_t i = 1; i < row.size(); ++i) cells.push_back(two_lines(row[i]));
  }
  return fmt::format("<h2>{}</h2>\n{}{}", table.title, cells_table(head, rows),
                     table.title == "Conversation" ? growth_text(report.growth) : "");
}

std::string remarks_text(const SpeedReport& report) {
  if (report.remarks.empty()) return "";
  std::string text = "<h2>Remarks</h2>\n";
  for (const std::string& remark : report.remarks) text += "<p class=\"warn\">" + markup_text(remark) + "</p>\n";
  return text;
}

}  // namespace

Status write_speed_html(const Path& file, const SpeedReport& report) {
  NIBBLE_TRY(page, Page::create(file, "Speed report"));
  std::string body = "<h1>Speed as a client sees it</h1>\n" + lead(report) + figures_table(report) +
                     remarks_text(report) + "<h2>Plots</h2>\n" + plots(report);
  for (const SpeedTable& table : speed_tables(report, true)) body += table_text(table, report);
  body +=
      "<p class=\"faint\">times are median [95 % interval of the median] p95; * drifts by more than a tenth between "
      "the "
      "first and the last third; of the server's own times median, p95</p>\n<h2>Run</h2>\n" +
      run_facts(report.run) + data_block("id=\"report\"", to_json(report));
  NIBBLE_RETURN_IF_ERROR(page.add(body));
  return page.finish();
}

}  // namespace nibble::gate

#include <fmt/format.h>

#include <algorithm>

#include "gate/speed_report.h"

namespace nibble::gate {
namespace {

// Four digits that mean something, without an exponent.
std::string number(double value) {
  return value >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
}

std::string spread_cell(const Distribution& spread) {
  return spread.n == 0 ? "-" : fmt::format("{}, {}", number(spread.p50), number(spread.p95));
}

std::string timing_cell(const Timing& timing) {
  if (timing.spread.n == 0) return "-";
  return fmt::format("{} [{} {}] {}{}", number(timing.spread.p50), number(timing.median.low),
                     number(timing.median.high), number(timing.spread.p95), timing.drifts() ? " *" : "");
}

std::string count_cell(double count) {
  return count < 0 ? "-" : fmt::format("{:.0f}", count);
}

struct Column {
  const char* head;
  bool main;  // in the terminal, too
  std::string (*cell)(const SpeedPoint&);
};

constexpr Column kColumns[] = {
    {"n", true, [](const SpeedPoint& p) { return std::to_string(p.reply_ms.spread.n); }},
    {"prompt", true, [](const SpeedPoint& p) { return count_cell(p.prompt_tokens); }},
    {"cached", true, [](const SpeedPoint& p) { return count_cell(p.cached_tokens); }},
    {"reply", false, [](const SpeedPoint& p) { return count_cell(p.completion_tokens); }},
    {"TTFH ms", false, [](const SpeedPoint& p) { return timing_cell(p.headers_ms); }},
    {"TTFT ms", false, [](const SpeedPoint& p) { return timing_cell(p.ttft_ms); }},
    {"TTFAT ms", true, [](const SpeedPoint& p) { return timing_cell(p.ttfat_ms); }},
    {"between tokens ms", false, [](const SpeedPoint& p) { return timing_cell(p.between_tokens_ms); }},
    {"decode tok/s", true, [](const SpeedPoint& p) { return timing_cell(p.decode_tok_s); }},
    {"whole reply ms", false, [](const SpeedPoint& p) { return timing_cell(p.reply_ms); }},
};
// Only where it says something.
constexpr Column kClients[] = {
    {"in flight", true, [](const SpeedPoint& p) { return fmt::format("{:.1f}", p.in_flight); }},
    {"all tok/s", true, [](const SpeedPoint& p) { return number(p.tok_s); }},
};
constexpr Column kServer[] = {
    {"server: prompt ms", false, [](const SpeedPoint& p) { return spread_cell(p.server_prompt_ms); }},
    {"server: tok/s", false, [](const SpeedPoint& p) { return spread_cell(p.server_decode_tok_s); }},
};

SpeedTable table_of(std::string heading, const std::vector<const SpeedPoint*>& points, bool all) {
  std::vector<Column> columns(std::begin(kColumns), std::end(kColumns));
  if (points.front()->sweep == Sweep::concurrency) {
    columns.insert(columns.end(), std::begin(kClients), std::end(kClients));
  }
  if (std::any_of(points.begin(), points.end(), [](const SpeedPoint* p) { return p->server_prompt_ms.n > 0; })) {
    columns.insert(columns.end(), std::begin(kServer), std::end(kServer));
  }
  std::erase_if(columns, [&](const Column& column) { return !all && !column.main; });
  SpeedTable table{.title = std::move(heading), .head = {""}, .rows = {}};
  for (const Column& column : columns) table.head.emplace_back(column.head);
  for (const SpeedPoint* point : points) {
    std::vector<std::string>& row = table.rows.emplace_back();
    row.push_back(title(*point));
    for (const Column& column : columns) row.push_back(column.cell(*point));
  }
  return table;
}

}  // namespace

std::string title(const SpeedPoint& point) {
  switch (point.sweep) {
    case Sweep::preparation:
      return "preparation";
    case Sweep::context:
      return fmt::format("{} tokens, {} prefix", point.size, point.warm ? "known" : "new");
    case Sweep::conversation:
      return fmt::format("turn {}", point.size);
    case Sweep::concurrency:
      return fmt::format("{} client{}", point.size, point.size == 1 ? "" : "s");
    case Sweep::output:
      return fmt::format("up to {} tokens", point.size);
  }
  return "";
}

std::vector<SpeedTable> speed_tables(const SpeedReport& report, bool all) {
  constexpr std::pair<Sweep, const char*> kTitles[] = {{Sweep::context, "Context"},
                                                       {Sweep::conversation, "Conversation"},
                                                       {Sweep::concurrency, "Concurrency"},
                                                       {Sweep::output, "Output"}};
  std::vector<SpeedTable> tables;
  for (const auto& [sweep, title] : kTitles) {
    const std::vector<const SpeedPoint*> points = report.of(sweep);
    if (!points.empty()) tables.push_back(table_of(title, points, all));
  }
  return tables;
}

}  // namespace nibble::gate

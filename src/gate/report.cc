#include "gate/report.h"

#include <fmt/format.h>

#include <map>

namespace nibble::gate {
namespace {

void add(Tally& tally, const CaseResult& result) {
  tally.cases += 1;
  tally.passed += result.passed;
  tally.with_manners += result.passed && result.manners.clean();
  tally.thinks += result.manners.thinks;
  tally.markdown += result.manners.markdown;
  tally.asks += result.manners.asks;
}

double rate(int64_t k, int64_t n) {
  return n == 0 ? 0 : static_cast<double>(k) / static_cast<double>(n);
}

Json to_json(const Tally& tally) {
  const Interval interval = tally.interval();
  return {{"category", tally.category},
          {"n", tally.cases},
          {"passed", tally.passed},
          {"rate", rate(tally.passed, tally.cases)},
          {"ci", {interval.low, interval.high}},
          {"with_manners", tally.with_manners},
          {"thinks", tally.thinks},
          {"markdown", tally.markdown},
          {"asks", tally.asks}};
}

std::string line(const Tally& tally) {
  const Interval interval = tally.interval();
  return fmt::format("{:<16}{:>5}/{:<5}{:>5.1f} %  {:>5.1f} … {:>5.1f}{:>9.1f} %{:>8}{:>10}{:>6}\n", tally.category,
                     tally.passed, tally.cases, 100 * rate(tally.passed, tally.cases), 100 * interval.low,
                     100 * interval.high, 100 * rate(tally.with_manners, tally.cases), tally.thinks, tally.markdown,
                     tally.asks);
}

}  // namespace

Tally GateReport::overall() const {
  Tally tally{.category = "overall"};
  for (const CaseResult& result : results) add(tally, result);
  return tally;
}

std::vector<Tally> GateReport::categories() const {
  std::map<std::string, Tally> by_name;
  for (const CaseResult& result : results) {
    Tally& tally = by_name[result.category];
    tally.category = result.category;
    add(tally, result);
  }
  std::vector<Tally> tallies;
  tallies.reserve(by_name.size());
  for (const auto& [name, tally] : by_name) tallies.push_back(tally);
  return tallies;
}

Json to_json(const GateReport& report) {
  Json json = {{"schema", 1},
               {"run",
                {{"endpoint", report.endpoint},
                 {"model", report.model},
                 {"max_tokens", report.max_tokens},
                 {"temperature", report.temperature},
                 {"thinking", report.thinking},
                 {"retries", report.retries},
                 {"seconds", report.seconds}}},
               {"overall", to_json(report.overall())},
               {"categories", Json::array()},
               {"failures", Json::array()}};
  if (!report.activations.empty()) json["run"]["activations"] = report.activations;
  for (const Tally& tally : report.categories()) json["categories"].push_back(to_json(tally));
  for (const CaseResult& result : report.results) {
    if (result.passed) continue;
    json["failures"].push_back({{"id", result.id},
                                {"category", result.category},
                                {"reason", result.reason},
                                {"transcript", result.transcript}});
  }
  return json;
}

std::string to_text(const GateReport& report, size_t failures) {
  std::string text = fmt::format("{:<16}{:>11}{:>7}  {:>13}{:>11}{:>8}{:>10}{:>6}\n", "category", "passed", "rate",
                                 "95 % interval", "w/ manners", "thinks", "markdown", "asks");
  for (const Tally& tally : report.categories()) text += line(tally);
  text += line(report.overall());
  if (!report.activations.empty()) text += fmt::format("activations {}\n", report.activations);
  for (const CaseResult& result : report.results) {
    if (result.passed) continue;
    if (failures-- == 0) break;
    text += fmt::format("\ncase {} ({}): {}\n", result.id, result.category, result.reason);
    for (const std::string& entry : result.transcript) text += fmt::format("  {}\n", entry);
  }
  return text;
}

}  // namespace nibble::gate

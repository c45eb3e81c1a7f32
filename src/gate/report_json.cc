#include <cmath>

#include "gate/report.h"

namespace nibble::gate {
namespace {

Json rounded(double value, double steps) {
  return std::round(value * steps) / steps;
}

Json to_json(const Tally& tally) {
  const Interval interval = tally.interval();
  const double rate = tally.cases == 0 ? 0 : static_cast<double>(tally.passed) / static_cast<double>(tally.cases);
  return {{"category", tally.category},
          {"n", tally.cases},
          {"passed", tally.passed},
          {"rate", rate},
          {"ci", {interval.low, interval.high}},
          {"with_manners", tally.with_manners},
          {"thinks", tally.thinks},
          {"markdown", tally.markdown},
          {"asks", tally.asks}};
}

Json to_json(const Distribution& spread) {
  return {{"n", spread.n},
          {"p50", rounded(spread.p50, 100)},
          {"p95", rounded(spread.p95, 100)},
          {"p99", rounded(spread.p99, 100)},
          {"max", rounded(spread.max, 100)}};
}

constexpr const char* metric_name(Metric metric) {
  constexpr const char* kNames[] = {"rate", "count", "p50", "p95", "ratio"};
  return kNames[static_cast<size_t>(metric)];
}

Json to_json(const GateResult& result) {
  Json json = {{"id", result.gate.id},
               {"metric", metric_name(result.gate.metric)},
               {"k", result.k},
               {"n", result.n},
               {"value", result.value},
               {"op", result.gate.bound == Bound::at_least ? ">=" : "<="},
               {"threshold", result.gate.threshold},
               {"verdict", name(result.verdict)}};
  if (result.gate.metric == Metric::rate) {
    json["rate"] = result.value;
    json["ci"] = {result.interval.low, result.interval.high};
    json["proved"] = result.proved;
  }
  if (!result.why.empty()) json["why"] = result.why;
  if (result.gate.report_only) json["report_only"] = true;
  json["failures"] = result.failures;
  return json;
}

Json to_json(const std::vector<Anomaly>& anomalies) {
  Json list = Json::array();
  for (const Anomaly& anomaly : anomalies) {
    Json& item =
        list.emplace_back(Json{{"id", anomaly.id}, {"snippet", anomaly.snippet}, {"warning", anomaly.warning}});
    if (anomaly.begin >= 0) item["span"] = {anomaly.begin, anomaly.end};
    if (!anomaly.suppressed.empty()) item["suppressed"] = anomaly.suppressed;
  }
  return list;
}

}  // namespace

Json to_json(const Report& report) {
  Json gates = Json::array(), categories = Json::array(), by_turn = Json::array();
  for (const GateResult& result : report.gates) gates.push_back(to_json(result));
  for (const Tally& tally : report.categories) categories.push_back(to_json(tally));
  Json suppressed = Json::array();
  for (const auto& [case_id, detector, reason, hits] : report.suppressed) {
    suppressed.push_back({{"case", case_id}, {"detector", detector}, {"reason", reason}, {"hits", hits}});
  }
  const Latency& latency = report.latency;
  for (const Distribution& turn : latency.by_turn) by_turn.push_back(to_json(turn));
  return {{"schema", 1},
          {"run", report.run},
          {"gates", std::move(gates)},
          {"overall", to_json(report.overall)},
          {"categories", std::move(categories)},
          {"latency",
           {{"ttft_ms", to_json(latency.ttft_ms)},
            {"ttfat_ms", to_json(latency.ttfat_ms)},
            {"warm_ttfat_ms", to_json(latency.warm_ttfat_ms)},
            {"between_tokens_ms", to_json(latency.between_tokens_ms)},
            {"decode_tok_s", to_json(latency.decode_tok_s)},
            {"reply_ms", to_json(latency.reply_ms)},
            {"by_turn", std::move(by_turn)},
            {"growth", rounded(latency.growth, 1000)}}},
          {"anomalies", report.anomalies},
          {"suppressed", std::move(suppressed)},
          {"verbosity",
           {{"words_mean", rounded(report.words_mean, 100)}, {"tokens_mean", rounded(report.tokens_mean, 100)}}},
          {"infra",
           {{"replies", report.replies},
            {"retries", report.retries},
            {"errors", report.errors},
            {"missing", report.missing},
            {"lacking", report.lacking}}}};
}

Json conversation_json(const CaseRecord& record) {
  Json turns = Json::array();
  for (const PlayedTurn& turn : record.turns) {
    Json calls = Json::array(), anomalies = to_json(turn.anomalies), failures = Json::array();
    std::string reply, reasoning;
    for (const PlayedMessage& message : turn.messages) {
      const Reply& said = message.said.reply;
      for (size_t i = 0; i < said.calls.size(); ++i) {
        calls.push_back({{"name", said.calls[i].name},
                         {"arguments", said.calls[i].arguments},
                         {"result", i < message.results.size() ? message.results[i] : ""}});
      }
      reply += (reply.empty() || said.content.empty() ? "" : "\n") + said.content;
      reasoning += said.reasoning;
      for (Json& anomaly : to_json(message.anomalies)) anomalies.push_back(std::move(anomaly));
    }
    for (const Failure& failure : turn.failures) failures.push_back(failure.what + ": " + failure.detail);
    const double first_ms = turn.messages.empty() ? -1 : turn.messages.front().said.times.first_answer_ms;
    const double end_ms = turn.messages.empty() ? -1 : turn.messages.back().said.times.end_ms;
    turns.push_back({{"user", turn.user},
                     {"reply", std::move(reply)},
                     {"reasoning", std::move(reasoning)},
                     {"calls", std::move(calls)},
                     {"pass", turn.passed()},
                     {"failures", std::move(failures)},
                     {"anomalies", std::move(anomalies)},
                     {"ttfat_ms", rounded(first_ms, 10)},
                     {"ms", rounded(end_ms, 10)}});
  }
  Json json = {{"id", record.id},          {"repeat", record.repeat}, {"category", record.category},
               {"gates", record.gates},    {"pass", record.passed()}, {"clean", record.clean()},
               {"turns", std::move(turns)}};
  if (!record.error.empty()) json["error"] = record.error;
  return json;
}

}  // namespace nibble::gate

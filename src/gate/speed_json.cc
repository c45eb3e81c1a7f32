#include <fmt/format.h>

#include <cmath>

#include "gate/chat_stream.h"
#include "gate/speed_report.h"

namespace nibble::gate {
namespace {

double rounded(double value) {
  return std::round(value * 1000) / 1000;
}

Json to_json(const Distribution& spread) {
  return {{"n", spread.n},
          {"p50", rounded(spread.p50)},
          {"p95", rounded(spread.p95)},
          {"p99", rounded(spread.p99)},
          {"max", rounded(spread.max)}};
}

Json to_json(const Interval& interval) {
  return {rounded(interval.low), rounded(interval.high)};
}

Json to_json(const Timing& timing) {
  Json json = to_json(timing.spread);
  json["ci"] = to_json(timing.median);
  json["drift"] = rounded(timing.drift);
  return json;
}

Json to_json(const SpeedPoint& point) {
  Json json = {{"size", point.size}};
  if (point.sweep == Sweep::context) json["prefix"] = point.warm ? "warm" : "cold";
  json.update({{"failed", point.failed},
               {"prompt_tokens", point.prompt_tokens},
               {"cached_tokens", point.cached_tokens},
               {"completion_tokens", point.completion_tokens},
               {"ttfh_ms", to_json(point.headers_ms)},
               {"ttft_ms", to_json(point.ttft_ms)},
               {"ttfat_ms", to_json(point.ttfat_ms)},
               {"between_tokens_ms", to_json(point.between_tokens_ms)},
               {"decode_tok_s", to_json(point.decode_tok_s)},
               {"reply_ms", to_json(point.reply_ms)},
               {"tok_s", rounded(point.tok_s)},
               {"in_flight", rounded(point.in_flight)}});
  if (point.server_prompt_ms.n > 0) json["server_prompt_ms"] = to_json(point.server_prompt_ms);
  if (point.server_decode_tok_s.n > 0) json["server_decode_tok_s"] = to_json(point.server_decode_tok_s);
  if (!point.why.empty()) json["why"] = point.why;
  return json;
}

}  // namespace

Json to_json(const SpeedReport& report) {
  Json json = {{"schema", 1}, {"run", report.run}, {"complete", report.complete}, {"first_ttfat_ms", nullptr}};
  if (report.first_ttfat_ms) json["first_ttfat_ms"] = rounded(*report.first_ttfat_ms);
  json["figures"] = Json::array();
  for (const SpeedFigure& figure : report.figures) {
    json["figures"].push_back({{"id", figure.id},
                               {"what", figure.what},
                               {"unit", figure.unit},
                               {"n", figure.n},
                               {"value", rounded(figure.value)},
                               {"ci", figure.interval ? to_json(*figure.interval) : Json()},
                               {"p95", figure.p95 ? Json(rounded(*figure.p95)) : Json()}});
  }
  for (const Sweep sweep : {Sweep::context, Sweep::conversation, Sweep::concurrency, Sweep::output}) {
    json[name(sweep)] = Json::array();
    for (const SpeedPoint* point : report.of(sweep)) json[name(sweep)].push_back(to_json(*point));
  }
  json["growth"] = {{"ratio", rounded(report.growth.ratio)},
                    {"ci", to_json(report.growth.interval)},
                    {"turns_2_4_ms", to_json(report.growth.early)},
                    {"turns_16_20_ms", to_json(report.growth.late)},
                    {"turns_from_2_ms", to_json(report.growth.all)}};
  json["remarks"] = report.remarks;
  json["infra"] = {{"requests", report.requests}, {"failed", report.failed}};
  return json;
}

Json to_json(const SpeedRecord& record) {
  const StreamedReply& said = record.said;
  Json json = {{"sweep", name(record.sweep)},  {"size", record.size},       {"warm", record.warm},
               {"stream", record.stream},      {"counted", record.counted}, {"begin", rounded(record.begin_ms)},
               {"end", rounded(record.end_ms)}};
  if (!record.error.empty()) {
    json["error"] = record.error;
    return json;
  }
  Json answer = Json::array();
  for (const double at : said.times.answer_ms) answer.push_back(rounded(at));
  json.update({{"finish", said.finish},
               {"prompt_tokens", said.usage.prompt_tokens},
               {"cached_tokens", said.usage.cached_tokens},
               {"completion_tokens", said.usage.completion_tokens},
               {"reasoning_tokens", said.usage.reasoning_tokens},
               {"ms",
                {{"headers", rounded(said.times.headers_ms)},
                 {"first_chunk", rounded(said.times.first_chunk_ms)},
                 {"first_answer", rounded(said.times.first_answer_ms)},
                 {"end", rounded(said.times.end_ms)},
                 {"answer", std::move(answer)}}},
               {"timings",
                {{"prompt_ms", rounded(said.timings.prompt_ms)},
                 {"predicted_ms", rounded(said.timings.predicted_ms)},
                 {"predicted_per_second", rounded(said.timings.predicted_per_second)}}}});
  return json;
}

Status write_speed_json(const Path& file, const SpeedReport& report, const SpeedRun& run) {
  NIBBLE_TRY(out, OutputFile::create(file));
  std::string head = dump(to_json(report));
  head.pop_back();
  NIBBLE_RETURN_IF_ERROR(out.write(head + ",\"records\":["));
  for (size_t i = 0; i < run.records.size(); ++i) {
    NIBBLE_RETURN_IF_ERROR(out.write((i == 0 ? "\n" : ",\n") + dump(to_json(run.records[i]))));
  }
  NIBBLE_RETURN_IF_ERROR(out.write("\n]}\n"));
  return out.commit();
}

}  // namespace nibble::gate

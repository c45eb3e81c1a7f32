#include "gate/record.h"

#include <algorithm>
#include <cmath>

#include "io/object_reader.h"

namespace nibble::gate {
namespace {

// Times are kept to a tenth of a millisecond.
Json ms(double value) {
  return std::round(value * 10) / 10;
}

Json list_of(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(ms(value));
  return list;
}

Json to_json(const std::vector<Anomaly>& anomalies) {
  Json list = Json::array();
  for (const Anomaly& anomaly : anomalies) {
    Json item = {{"id", anomaly.id}};
    if (!anomaly.snippet.empty()) item["snippet"] = anomaly.snippet;
    if (anomaly.warning) item["warning"] = true;
    if (anomaly.begin >= 0) item["span"] = {anomaly.begin, anomaly.end};
    list.push_back(std::move(item));
  }
  return list;
}

Json to_json(const PlayedMessage& message) {
  const StreamedReply& said = message.said;
  Json json = {{"content", said.reply.content}};
  if (!said.reply.reasoning.empty()) json["reasoning"] = said.reply.reasoning;
  if (!said.reply.calls.empty()) {
    for (const ToolCall& call : said.reply.calls) {
      json["calls"].push_back({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
    }
  }
  if (!message.results.empty()) json["results"] = message.results;
  json["finish"] = said.finish;
  json["usage"] = {{"prompt", said.usage.prompt_tokens},
                   {"cached", said.usage.cached_tokens},
                   {"completion", said.usage.completion_tokens},
                   {"reasoning", said.usage.reasoning_tokens}};
  json["ms"] = {{"headers", ms(said.times.headers_ms)},
                {"first_chunk", ms(said.times.first_chunk_ms)},
                {"first_answer", ms(said.times.first_answer_ms)},
                {"end", ms(said.times.end_ms)},
                {"answer", list_of(said.times.answer_ms)}};
  if (!said.disorder.empty()) json["disorder"] = said.disorder;
  if (said.interrupted) json["interrupted"] = true;
  if (!message.anomalies.empty()) json["anomalies"] = to_json(message.anomalies);
  return json;
}

// Reads a list of objects, each by `each(reader, element)`.
template <class T, class Each>
void read_list(ObjectReader& outer, const char* key, std::vector<T>& out, Each each) {
  const Json* list = outer.value(key);
  if (list == nullptr) return;
  if (!list->is_array()) return outer.expected_of(key, "a list", *list);
  for (const Json& item : *list) {
    ObjectReader reader(item, outer.where() + ": " + key);
    each(reader, out.emplace_back());
    if (Status status = reader.finish(); !status.ok()) return outer.fail(std::move(status));
  }
}

void read_anomalies(ObjectReader& reader, std::vector<Anomaly>& out) {
  read_list(reader, "anomalies", out, [](ObjectReader& fields, Anomaly& anomaly) {
    fields.text("id", anomaly.id);
    fields.text("snippet", anomaly.snippet);
    fields.flag("warning", anomaly.warning);
    const Json* span = fields.value("span");
    if (span == nullptr) return;
    if (!span->is_array() || span->size() != 2 || !(*span)[0].is_number_integer() || !(*span)[1].is_number_integer()) {
      return fields.expected_of("span", "two numbers", *span);
    }
    anomaly.begin = (*span)[0].get<int64_t>();
    anomaly.end = (*span)[1].get<int64_t>();
  });
}

template <class Each>
void read_object(ObjectReader& outer, const char* key, Each each) {
  const Json* json = outer.value(key);
  if (json == nullptr) return;
  ObjectReader reader(*json, outer.where() + ": " + key);
  each(reader);
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
}

void read_message(ObjectReader& reader, PlayedMessage& message) {
  constexpr int64_t kMaxTokens = int64_t{1} << 40;
  constexpr double kMaxMs = 1e12;
  StreamedReply& said = message.said;
  reader.text("content", said.reply.content);
  reader.text("reasoning", said.reply.reasoning);
  read_list(reader, "calls", said.reply.calls, [](ObjectReader& fields, ToolCall& call) {
    fields.text("id", call.id);
    fields.text("name", call.name);
    fields.text("arguments", call.arguments);
  });
  reader.texts("results", message.results);
  reader.text("finish", said.finish);
  read_object(reader, "usage", [&](ObjectReader& fields) {
    fields.whole_number("prompt", -1, kMaxTokens, said.usage.prompt_tokens);
    fields.whole_number("cached", -1, kMaxTokens, said.usage.cached_tokens);
    fields.whole_number("completion", -1, kMaxTokens, said.usage.completion_tokens);
    fields.whole_number("reasoning", -1, kMaxTokens, said.usage.reasoning_tokens);
  });
  read_object(reader, "ms", [&](ObjectReader& fields) {
    fields.number("headers", -1, kMaxMs, said.times.headers_ms);
    fields.number("first_chunk", -1, kMaxMs, said.times.first_chunk_ms);
    fields.number("first_answer", -1, kMaxMs, said.times.first_answer_ms);
    fields.number("end", -1, kMaxMs, said.times.end_ms);
    if (const Json* answer = fields.value("answer")) {
      for (const Json& at : *answer) said.times.answer_ms.push_back(at.is_number() ? at.get<double>() : 0);
    }
  });
  reader.texts("disorder", said.disorder);
  reader.flag("interrupted", said.interrupted);
  read_anomalies(reader, message.anomalies);
}

void read_turn(ObjectReader& reader, PlayedTurn& turn) {
  reader.text("user", turn.user);
  read_list(reader, "messages", turn.messages, read_message);
  read_list(reader, "failures", turn.failures, [](ObjectReader& fields, Failure& failure) {
    fields.text("what", failure.what);
    fields.text("detail", failure.detail);
  });
  read_anomalies(reader, turn.anomalies);
  reader.text("not_judged", turn.not_judged);
}

bool faulty(const std::vector<Anomaly>& anomalies) {
  return std::any_of(anomalies.begin(), anomalies.end(),
                     [](const Anomaly& a) { return !a.warning && a.suppressed.empty(); });
}

}  // namespace

bool CaseRecord::passed() const {
  return error.empty() && !turns.empty() &&
         std::all_of(turns.begin(), turns.end(), [](const PlayedTurn& turn) { return turn.passed(); });
}

bool CaseRecord::clean() const {
  return passed() && std::none_of(turns.begin(), turns.end(), [](const PlayedTurn& turn) {
           return faulty(turn.anomalies) || std::any_of(turn.messages.begin(), turn.messages.end(),
                                                        [](const PlayedMessage& m) { return faulty(m.anomalies); });
         });
}

Json to_json(const CaseRecord& record) {
  Json turns = Json::array();
  for (const PlayedTurn& turn : record.turns) {
    Json messages = Json::array();
    for (const PlayedMessage& message : turn.messages) messages.push_back(to_json(message));
    Json item = {{"user", turn.user}, {"messages", std::move(messages)}};
    for (const Failure& failure : turn.failures) {
      item["failures"].push_back({{"what", failure.what}, {"detail", failure.detail}});
    }
    if (!turn.anomalies.empty()) item["anomalies"] = to_json(turn.anomalies);
    if (!turn.not_judged.empty()) item["not_judged"] = turn.not_judged;
    turns.push_back(std::move(item));
  }
  Json json = {{"key", record.key},       {"id", record.id},       {"category", record.category},
               {"repeat", record.repeat}, {"gates", record.gates}, {"turns", std::move(turns)}};
  if (!record.error.empty()) json["error"] = record.error;
  if (!record.lacking.empty()) json["lacking"] = record.lacking;
  if (record.retries > 0) json["retries"] = record.retries;
  return json;
}

Result<CaseRecord> record_from_json(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  CaseRecord record;
  for (const char* key : {"key", "id", "turns"}) reader.require(key);
  reader.text("key", record.key);
  reader.text("id", record.id);
  reader.text("category", record.category);
  reader.whole_number("repeat", 1, 1'000'000, record.repeat);
  reader.texts("gates", record.gates);
  read_list(reader, "turns", record.turns, read_turn);
  reader.text("error", record.error);
  reader.text("lacking", record.lacking);
  reader.whole_number("retries", 0, 1'000'000, record.retries);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return record;
}

}  // namespace nibble::gate

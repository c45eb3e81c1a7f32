#include "gate/case.h"

#include <algorithm>
#include <map>

#include "gate/anomalies.h"
#include "gate/chat_stream.h"
#include "gate/decimal.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

constexpr size_t kMaxTurns = 1000;

void read_patterns(ObjectReader& reader, const char* key, std::vector<TextPattern>& out) {
  const Json* json = reader.value(key);
  if (json == nullptr) return;
  if (!json->is_array() || json->empty()) return reader.expected_of(key, "a list of texts", *json);
  for (const Json& item : *json) {
    auto pattern = TextPattern::parse(item, fmt::format("{}: {}", reader.where(), key));
    if (!pattern.ok()) return reader.fail(pattern.status());
    out.push_back(std::move(pattern).value());
  }
}

// call, call_any, any_call or no_call: at most one of them.
void read_calls(ObjectReader& reader, const Json& tools, std::optional<CallExpectation>& out) {
  const Json* all = reader.value("call");
  const Json* any = reader.value("call_any");
  bool none = false, some = false;
  reader.flag("no_call", none);
  reader.flag("any_call", some);
  if ((all != nullptr) + (any != nullptr) + static_cast<int>(none) + static_cast<int>(some) > 1) {
    return reader.fail(corrupt("{}: expected one of call, call_any, any_call and no_call, got more", reader.where()));
  }
  if (none) out = CallExpectation::none();
  if (some) out = CallExpectation::some();
  if (all == nullptr && any == nullptr) return;
  const std::string where = reader.where() + (all != nullptr ? ": call" : ": call_any");
  auto call =
      all != nullptr ? CallExpectation::all_of(*all, tools, where) : CallExpectation::any_of(*any, tools, where);
  if (!call.ok()) return reader.fail(call.status());
  out = std::move(call).value();
}

void read_schema(ObjectReader& reader, std::optional<JsonSchema>& out) {
  const Json* json = reader.value("json_schema");
  if (json == nullptr) return;
  auto schema = JsonSchema::compile(*json, reader.where() + ": json_schema");
  if (!schema.ok()) return reader.fail(schema.status());
  if (!schema->unknown_keywords().empty()) {
    return reader.fail(corrupt("{}: json_schema: expected keywords that are checked, got {}", reader.where(),
                               schema->unknown_keywords().front()));
  }
  out = std::move(schema).value();
}

void read_last_number(ObjectReader& reader, std::string& out) {
  std::string text;
  reader.text("last_number", text);
  if (!reader.has("last_number") || !reader.ok()) return;
  const auto number = whole_decimal(text);
  if (!number) return reader.fail(corrupt("{}: last_number: expected a number, got \"{}\"", reader.where(), text));
  out = *number;
}

// [{"id": "keywords:existence", "keywords": ["lake"]}]: the type, and its arguments beside it.
void read_instructions(ObjectReader& reader, std::vector<Instruction>& out) {
  const Json* list = reader.value("instructions");
  if (list == nullptr) return;
  if (!list->is_array() || list->empty()) return reader.expected_of("instructions", "a list of instructions", *list);
  for (const Json& item : *list) {
    Json arguments = item;
    const Json& id = member(item, "id");
    if (!id.is_string()) return reader.expected_of("instructions", "objects with an id", item);
    arguments.erase("id");
    auto instruction = Instruction::parse(id.get<std::string>(), arguments, reader.where() + ": instructions");
    if (!instruction.ok()) return reader.fail(instruction.status());
    out.push_back(std::move(instruction).value());
  }
}

template <class T>
void read_optional(ObjectReader& reader, const char* key, int64_t low, int64_t high, std::optional<T>& out) {
  T value{};
  if (!reader.has(key)) {
    reader.value(key);
    return;
  }
  reader.whole_number(key, low, high, value);
  out = value;
}

std::optional<Recall> read_recall(ObjectReader& outer) {
  const Json* json = outer.value("recall");
  if (json == nullptr) return std::nullopt;
  ObjectReader reader(*json, outer.where() + ": recall");
  Recall recall;
  reader.require("turn");
  reader.require("must_any");
  reader.whole_number("turn", 1, kMaxTurns, recall.turn);
  read_patterns(reader, "must_any", recall.must_any);
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
  return recall;
}

Result<Expectation> parse_expectation(const Json& json, const Json& tools, const std::string& where) {
  ObjectReader reader(json, where);
  Expectation expect;
  read_patterns(reader, "must", expect.must);
  read_patterns(reader, "must_any", expect.must_any);
  read_patterns(reader, "must_not", expect.must_not);
  if (reader.has("equals")) reader.text("equals", expect.equals.emplace());
  if (reader.has("equals_number")) reader.number("equals_number", -1e15, 1e15, expect.equals_number.emplace());
  read_last_number(reader, expect.last_number);
  reader.texts("detectors", expect.detectors);
  for (const std::string& name : expect.detectors) {
    if (!is_detector(name)) reader.fail(corrupt("{}: detectors: expected the name of one, got \"{}\"", where, name));
  }
  read_optional(reader, "max_sentences", 0, 1000, expect.max_sentences);
  read_optional(reader, "max_words", 0, 100000, expect.max_words);
  read_calls(reader, tools, expect.call);
  if (reader.has("calls_in_order")) reader.texts("calls_in_order", expect.calls_in_order.emplace());
  reader.flag("direct", expect.direct);
  read_schema(reader, expect.json_schema);
  reader.text("finish", expect.finish);
  reader.flag("refuse", expect.refuse);
  read_optional(reader, "novel", 0, 1000, expect.novel);
  reader.text("name", expect.name);
  reader.number("within_ms", 0, 1e6, expect.within_ms);
  expect.recall = read_recall(reader);
  read_instructions(reader, expect.instructions);
  reader.text("judge", expect.judge);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return expect;
}

Result<Mock> parse_mock(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  Mock mock;
  reader.require("tool");
  reader.text("tool", mock.tool);
  if (const Json* match = reader.value("match")) {
    if (!match->is_object()) reader.expected_of("match", "an object", *match);
    for (const auto& item : match->items()) {
      if (!item.value().is_object()) {
        mock.equal.emplace_back(item.key(), item.value());
        continue;
      }
      auto pattern = TextPattern::parse(item.value(), where + ": match: " + item.key());
      if (!pattern.ok()) return pattern.status();
      mock.search.emplace_back(item.key(), std::move(pattern).value());
    }
  }
  const Json* result = reader.value("result");
  const Json* error = reader.value("error");
  if ((result == nullptr) == (error == nullptr)) {
    reader.fail(
        corrupt("{}: expected either a result or an error, got {}", where, result == nullptr ? "none" : "both"));
  } else if (result != nullptr) {
    mock.result = result->is_string() ? result->get<std::string>() : dump(*result);
  } else {
    mock.result = dump({{"error", *error}});
  }
  reader.number("delay_ms", 0, 60'000, mock.delay_ms);
  reader.whole_number("times", 0, 1000, mock.times);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return mock;
}

Result<std::vector<Mock>> parse_mocks(const Json& json, const std::string& where) {
  if (!json.is_array()) return corrupt("{}: mocks: expected a list, got {}", where, json.type_name());
  std::vector<Mock> mocks;
  for (const Json& item : json) {
    NIBBLE_TRY(mock, parse_mock(item, fmt::format("{}: mocks[{}]", where, mocks.size())));
    mocks.push_back(std::move(mock));
  }
  return mocks;
}

Result<GoodMessage> parse_good_message(const Json& json, const std::string& where) {
  GoodMessage message;
  if (json.is_string()) {
    message.text = json.get<std::string>();
    return message;
  }
  ObjectReader reader(json, where);
  reader.text("text", message.text);
  if (const Json* calls = reader.value("calls")) {
    if (!calls->is_array() || calls->empty()) reader.expected_of("calls", "a list of calls", *calls);
    for (const Json& call : *calls) {
      ObjectReader fields(call, where + ": calls");
      auto& [name, arguments] = message.calls.emplace_back();
      fields.require("name");
      fields.require("arguments");
      fields.text("name", name);
      if (const Json* given = fields.value("arguments")) arguments = *given;
      if (Status status = fields.finish(); !status.ok()) reader.fail(std::move(status));
    }
  }
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return message;
}

Result<std::vector<GoodMessage>> parse_good(const Json& json, const std::string& where) {
  std::vector<GoodMessage> messages;
  const Json list = json.is_array() ? json : Json::array({json});
  for (const Json& item : list) {
    NIBBLE_TRY(message, parse_good_message(item, where + ": good"));
    messages.push_back(std::move(message));
  }
  return messages;
}

Result<Turn> parse_turn(const Json& json, const Json& tools, const std::vector<Mock>& mocks, const std::string& where) {
  ObjectReader reader(json, where);
  Turn turn;
  turn.mocks = mocks;
  reader.require("user");
  reader.text("user", turn.user);
  const Json* expect = reader.value("expect");
  const Json* own_mocks = reader.value("mocks");
  const Json* good = reader.value("good");
  reader.number("pause_ms", 0, 60'000, turn.pause_ms);
  reader.whole_number("interrupt_after_chars", 0, 1 << 20, turn.interrupt_after_chars);
  reader.flag("one_reply", turn.one_reply);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (expect != nullptr) {
    NIBBLE_TRY(parsed, parse_expectation(*expect, tools, where + ": expect"));
    turn.expect = std::move(parsed);
  }
  if (own_mocks != nullptr) {
    NIBBLE_TRY(parsed, parse_mocks(*own_mocks, where));
    turn.mocks = std::move(parsed);
  }
  if (good != nullptr) {
    NIBBLE_TRY(parsed, parse_good(*good, where));
    turn.good = std::move(parsed);
  }
  return turn;
}

void read_list(ObjectReader& reader, const char* key, Json& out) {
  const Json* json = reader.value(key);
  if (json == nullptr) return;
  if (!json->is_array()) return reader.expected_of(key, "a list", *json);
  out = *json;
}

}  // namespace

Result<Case> parse_case(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  Case one;
  reader.require("id");
  reader.require("why");
  reader.require("turns");
  reader.text("id", one.id);
  reader.text("category", one.category);
  reader.text("why", one.why);
  reader.texts("gates", one.gates);
  reader.texts("tags", one.tags);
  reader.text("system", one.system);
  read_list(reader, "tools", one.tools);
  read_list(reader, "history", one.history);
  if (const Json* params = reader.value("params")) {
    if (!params->is_object()) reader.expected_of("params", "an object", *params);
    one.params = *params;
  }
  const Json* shared_mocks = reader.value("mocks");
  const Json* turns = reader.value("turns");
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  std::vector<Mock> mocks;
  if (shared_mocks != nullptr) {
    NIBBLE_TRY(parsed, parse_mocks(*shared_mocks, where));
    mocks = std::move(parsed);
  }
  if (!turns->is_array() || turns->empty() || turns->size() > kMaxTurns) {
    return corrupt("{}: turns: expected 1 to {} turns, got {}", where, kMaxTurns, turns->size());
  }
  for (size_t i = 0; i < turns->size(); ++i) {
    NIBBLE_TRY(turn, parse_turn((*turns)[i], one.tools, mocks, fmt::format("{}: turn {}", where, i + 1)));
    if (turn.expect.recall && turn.expect.recall->turn > i) {
      return corrupt("{}: turn {}: recall: expected an earlier turn, got {}", where, i + 1, turn.expect.recall->turn);
    }
    one.turns.push_back(std::move(turn));
  }
  return one;
}

std::vector<Case> stratified(std::vector<Case> cases, size_t count) {
  if (count >= cases.size()) return cases;
  struct Stratum {
    size_t cases = 0, quota = 0, remainder = 0;
  };
  std::vector<Stratum> strata;  // in the order in which categories appear
  std::map<std::string, size_t> index;
  for (const Case& one : cases) {
    const auto [at, added] = index.try_emplace(one.category, strata.size());
    if (added) strata.emplace_back();
    ++strata[at->second].cases;
  }
  size_t left = count;
  std::vector<Stratum*> by_remainder;
  for (Stratum& s : strata) {
    s.quota = count * s.cases / cases.size();
    s.remainder = count * s.cases % cases.size();
    left -= s.quota;
    by_remainder.push_back(&s);
  }
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [](const Stratum* a, const Stratum* b) { return a->remainder > b->remainder; });
  for (size_t i = 0; i < left; ++i) ++by_remainder[i]->quota;
  std::erase_if(cases, [&](const Case& one) {
    size_t& quota = strata[index[one.category]].quota;
    if (quota == 0) return true;
    --quota;
    return false;
  });
  return cases;
}

}  // namespace nibble::gate

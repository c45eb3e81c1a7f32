#include "synth/recipe_fields.h"

#include "io/object_reader.h"
#include "synth/draw.h"

namespace nibble::synth {
namespace {

constexpr Word<Kind> kKinds[] = {{"write", Kind::write}, {"roll", Kind::roll}};
constexpr Word<bool> kKeys[] = {{"user_text", false}, {"pairs", true}};
constexpr int64_t kMany = 1'000'000;

void range(ObjectReader& reader, const char* key, int64_t low, int64_t high, Range& out) {
  const Json* json = reader.value(key);
  if (json == nullptr) return;
  const bool two =
      json->is_array() && json->size() == 2 && (*json)[0].is_number_integer() && (*json)[1].is_number_integer();
  const Range read = two ? Range{(*json)[0].get<int64_t>(), (*json)[1].get<int64_t>()} : Range{1, 0};
  if (read.low < low || read.high > high || read.low > read.high) {
    return reader.expected_of(key, fmt::format("two whole numbers from {} to {}, the lower one first", low, high),
                              *json);
  }
  out = read;
}

// {"word": "list", …} in this order, or "list" alone for records whose fields are the words.
void draws(ObjectReader& reader, const char* key, std::vector<Draw>& out) {
  const Json* json = reader.value(key);
  if (json == nullptr) return;
  if (json->is_string()) {
    out.push_back({"", json->get<std::string>()});
    return;
  }
  if (!json->is_object()) return reader.expected_of(key, "the name of a list, or words with theirs", *json);
  for (const auto& item : json->items()) {
    if (!item.value().is_string()) return reader.expected_of(key, "the name of a list for each word", *json);
    out.push_back({item.key(), item.value().get<std::string>()});
  }
}

// A list of objects, each read by `read`.
template <class Read>
void objects(ObjectReader& reader, const char* key, const Read& read) {
  const Json* json = reader.value(key);
  if (json == nullptr) return;
  if (!json->is_array()) return reader.expected_of(key, "a list", *json);
  for (size_t i = 0; i < json->size() && reader.ok(); ++i) {
    ObjectReader item((*json)[i], fmt::format("{}: {}[{}]", reader.where(), key, i));
    read(item);
    if (Status status = item.finish(); !status.ok()) reader.fail(std::move(status));
  }
}

void read_pattern(ObjectReader& reader, std::vector<PatternRule>& out) {
  std::string name, role = "assistant", must, must_not;
  reader.require("name");
  reader.text("name", name);
  reader.text("role", role);
  reader.text("must", must);
  reader.text("must_not", must_not);
  if (must.empty() == must_not.empty()) {
    return reader.fail(corrupt("{}: expected either must or must_not", reader.where()));
  }
  auto pattern = text::Pattern::compile(must.empty() ? must_not : must, reader.where());
  if (!pattern.ok()) return reader.fail(pattern.status());
  out.push_back({name, role, !must.empty(), std::move(pattern).value()});
}

// Over what stands in `rules` already, so that a category adds to the recipe's.
void read_rules(ObjectReader& outer, Rules& rules) {
  const Json* json = outer.value("rules");
  if (json == nullptr) return;
  ObjectReader reader(*json, outer.where() + ": rules");
  range(reader, "tokens", 0, kMany, rules.tokens);
  reader.whole_number("sentences", 0, kMany, rules.sentences);
  reader.whole_number("words", 0, kMany, rules.words);
  reader.texts("clean", rules.clean);
  reader.texts("scripts", rules.scripts);
  range(reader, "calls", 0, 64, rules.calls);
  reader.texts("call_one_of", rules.call_one_of);
  reader.flag("direct", rules.direct);
  reader.flag("honest", rules.honest);
  reader.flag("phantom", rules.phantom);
  reader.flag("personal_data", rules.personal_data);
  objects(reader, "patterns", [&](ObjectReader& item) { read_pattern(item, rules.patterns); });
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
}

void read_step(ObjectReader& reader, std::vector<Step>& out) {
  Step step;
  reader.text("call", step.call);
  reader.texts("words", step.words);
  reader.texts("must", step.must);
  reader.texts("must_any", step.must_any);
  reader.texts("must_not", step.must_not);
  if (const Json* result = reader.value("result")) step.result = *result;
  std::string error;
  reader.text("error", error);
  if (!error.empty()) step.result = {{"error", error}};
  if (step.call.empty() != step.result.is_null()) {
    reader.fail(corrupt("{}: expected a call with a result or an error, or neither", reader.where()));
  }
  out.push_back(std::move(step));
}

void read_exchange(ObjectReader& reader, std::vector<Exchange>& out) {
  Exchange exchange;
  for (const char* key : {"id", "user", "steps"}) reader.require(key);
  reader.text("id", exchange.id);
  draws(reader, "draw", exchange.draw);
  reader.texts("pair", exchange.pair);
  reader.texts("user", exchange.user);
  objects(reader, "steps", [&](ObjectReader& item) { read_step(item, exchange.steps); });
  if (!reader.ok()) return;
  if (exchange.user.empty()) reader.fail(corrupt("{}: user: expected at least one text", reader.where()));
  if (!exchange.pair.empty() && exchange.pair.size() != 2) {
    reader.fail(corrupt("{}: pair: expected two texts, got {}", reader.where(), exchange.pair.size()));
  }
  if (exchange.steps.empty() || !exchange.steps.back().call.empty()) {
    reader.fail(corrupt("{}: steps: expected a reply as the last one", reader.where()));
  }
  for (size_t i = 0; i + 1 < exchange.steps.size(); ++i) {
    if (exchange.steps[i].call.empty()) {
      reader.fail(corrupt("{}: steps[{}]: expected a call before the last step", reader.where(), i));
    }
  }
  out.push_back(std::move(exchange));
}

// {"id": weight, …} or ["id", …].
void read_choices(ObjectReader& reader, const std::vector<Exchange>& exchanges, std::vector<Choice>& out) {
  const Json* json = reader.value("exchanges");
  if (json == nullptr) return;
  const auto add = [&](const std::string& id, int64_t weight) {
    for (size_t i = 0; i < exchanges.size(); ++i) {
      if (exchanges[i].id == id) return out.push_back({i, weight});
    }
    reader.fail(corrupt("{}: exchanges: expected an exchange of the recipe, got \"{}\"", reader.where(), id));
  };
  if (json->is_object()) {
    for (const auto& item : json->items()) {
      const bool fits = item.value().is_number_integer() && item.value() >= 1 && item.value() <= 1000;
      if (!fits) return reader.expected_of("exchanges", "weights from 1 to 1000", *json);
      add(item.key(), item.value().get<int64_t>());
    }
    return;
  }
  std::vector<std::string> ids;
  reader.texts("exchanges", ids);
  for (const std::string& id : ids) add(id, 1);
}

void read_category(ObjectReader& reader, Recipe& recipe, const Rules& rules) {
  Category category;
  category.rules = rules;
  for (const char* key : {"id", "quota"}) reader.require(key);
  reader.text("id", category.id);
  reader.whole_number("quota", 0, kMany, category.quota);
  range(reader, "turns", 1, 100, category.turns);
  draws(reader, "draw", category.draw);
  read_rules(reader, category.rules);
  if (recipe.kind == Kind::write) {
    reader.require("brief");
    reader.text("brief", category.brief);
    reader.texts("rows", category.rows);
  } else {
    reader.require("exchanges");
    read_choices(reader, recipe.exchanges, category.exchanges);
    if (reader.ok() && category.exchanges.empty()) {
      reader.fail(corrupt("{}: exchanges: expected at least one", reader.where()));
    }
  }
  recipe.categories.push_back(std::move(category));
}

void read_hold_out(ObjectReader& outer, HoldOutRule& out) {
  const Json* json = outer.value("holdout");
  if (json == nullptr) return;
  ObjectReader reader(*json, outer.where() + ": holdout");
  reader.word("key", kKeys, out.pairs);
  reader.texts("gates", out.gates);
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
}

void read_set(ObjectReader& outer, SetRules& out) {
  const Json* json = outer.value("set");
  if (json == nullptr) return;
  ObjectReader reader(*json, outer.where() + ": set");
  reader.number("tool_calls", 0, 1, out.tool_calls);
  reader.number("near", 0, 1, out.near);
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
}

void read_prices(ObjectReader& outer, Prices& out) {
  const Json* json = outer.value("prices");
  if (json == nullptr) return;
  ObjectReader reader(*json, outer.where() + ": prices");
  reader.number("input_per_million", 0, 1e6, out.input_per_million);
  reader.number("output_per_million", 0, 1e6, out.output_per_million);
  if (Status status = reader.finish(); !status.ok()) outer.fail(std::move(status));
}

void read_data(ObjectReader& reader, std::map<std::string, Json>& out) {
  const Json* json = reader.value("data");
  if (json == nullptr) return;
  if (!json->is_object()) return reader.expected_of("data", "an object of lists", *json);
  for (const auto& list : json->items()) {
    const bool sound = list.value().is_array() && !list.value().empty();
    if (!sound)
      return reader.expected_of("data", fmt::format("a list in {} that is not empty", list.key()), list.value());
    const bool records = list.value()[0].is_object();
    for (const Json& item : list.value()) {
      if (item.is_object() != records || item.is_array() || item.is_null()) {
        return reader.expected_of("data", fmt::format("texts, numbers or records alone in {}", list.key()), item);
      }
    }
    out[list.key()] = list.value();
  }
}

// Every text that will be filled is filled once with the first items drawn.
Status check_words(const Recipe& recipe, const Category& category, const std::string& where) {
  Words words;
  Rng rng(0);
  draw_words(recipe, recipe.persona, rng, words);
  const auto check = [&](std::string_view text, const Words& known, const std::string& field) -> Status {
    const auto filled = fill(text, known);
    return filled.ok() ? Status() : corrupt("{}: {}: {}", where, field, filled.status().message());
  };
  NIBBLE_RETURN_IF_ERROR(check(recipe.system, words, "system"));
  NIBBLE_RETURN_IF_ERROR(check(category.brief, words, category.id + ".brief"));
  Words of_prompt = words;
  for (const char* word : {"category", "brief", "system", "tools", "count", "rows", "turns", "batch"})
    of_prompt[word] = "";
  for (const char* word : {"wrong", "answer"}) of_prompt[word] = "";
  NIBBLE_RETURN_IF_ERROR(check(recipe.prompt, of_prompt, "prompt"));
  NIBBLE_RETURN_IF_ERROR(check(recipe.repair, of_prompt, "repair"));
  draw_words(recipe, category.draw, rng, words);
  for (const std::string& row : category.rows) NIBBLE_RETURN_IF_ERROR(check(row, words, category.id + ".rows"));
  for (const Choice& choice : category.exchanges) {
    const Exchange& exchange = recipe.exchanges[choice.index];
    Words known = words;
    draw_words(recipe, exchange.draw, rng, known);
    std::vector<std::string> texts = exchange.user;
    texts.insert(texts.end(), exchange.pair.begin(), exchange.pair.end());
    for (const Step& step : exchange.steps) {
      for (const auto* list : {&step.words, &step.must, &step.must_any, &step.must_not}) {
        texts.insert(texts.end(), list->begin(), list->end());
      }
      texts.push_back(step.result.is_string() ? step.result.get<std::string>() : step.result.dump());
    }
    for (const std::string& text : texts) NIBBLE_RETURN_IF_ERROR(check(text, known, "exchange " + exchange.id));
  }
  return {};
}

Status check_lists(const Recipe& recipe, const std::vector<Draw>& draw, const std::string& where) {
  for (const Draw& one : draw) {
    const auto list = recipe.data.find(one.list);
    if (list == recipe.data.end()) return corrupt("{}: draw: expected a list of data, got \"{}\"", where, one.list);
    if (one.word.empty() && !list->second[0].is_object()) {
      return corrupt("{}: draw: expected records in \"{}\", whose words have no name of their own", where, one.list);
    }
  }
  return {};
}

}  // namespace

Result<Recipe> read_fields(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  Recipe recipe;
  recipe.name = where.substr(0, where.find('.'));
  for (const char* key : {"kind", "system", "categories"}) reader.require(key);
  reader.text("name", recipe.name);
  reader.text("title", recipe.title);
  reader.whole_number("version", 1, kMany, recipe.version);
  reader.word("kind", kKinds, recipe.kind);
  reader.text("system", recipe.system);
  if (const Json* tools = reader.value("tools")) {
    if (!tools->is_array()) reader.expected_of("tools", "a list of tools", *tools);
    recipe.tools = *tools;
  }
  read_data(reader, recipe.data);
  draws(reader, "persona", recipe.persona);
  if (recipe.kind == Kind::write) {
    for (const char* key : {"prompt", "repair"}) reader.require(key);
    reader.text("prompt", recipe.prompt);
    reader.whole_number("batch", 1, 50, recipe.batch);
  } else {
    reader.require("exchanges");
    objects(reader, "exchanges", [&](ObjectReader& item) { read_exchange(item, recipe.exchanges); });
  }
  reader.text("repair", recipe.repair);
  if (const Json* params = reader.value("params")) {
    if (!params->is_object()) reader.expected_of("params", "an object", *params);
    recipe.params = *params;
  }
  reader.whole_number("max_tokens", 1, kMany, recipe.max_tokens);
  read_prices(reader, recipe.prices);
  read_hold_out(reader, recipe.hold_out);
  read_set(reader, recipe.set);
  Rules rules;
  read_rules(reader, rules);
  objects(reader, "categories", [&](ObjectReader& item) { read_category(item, recipe, rules); });
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return recipe;
}

Status check_recipe(const Recipe& recipe, const std::string& where) {
  if (recipe.categories.empty()) return corrupt("{}: categories: expected at least one", where);
  NIBBLE_RETURN_IF_ERROR(check_lists(recipe, recipe.persona, where + ": persona"));
  for (const Exchange& one : recipe.exchanges) {
    NIBBLE_RETURN_IF_ERROR(check_lists(recipe, one.draw, fmt::format("{}: exchange {}", where, one.id)));
  }
  for (const Category& one : recipe.categories) {
    if (recipe.category(one.id) != &one)
      return corrupt("{}: categories: expected ids that differ, got {} twice", where, one.id);
    NIBBLE_RETURN_IF_ERROR(check_lists(recipe, one.draw, fmt::format("{}: {}", where, one.id)));
    NIBBLE_RETURN_IF_ERROR(check_words(recipe, one, where));
  }
  return {};
}

}  // namespace nibble::synth

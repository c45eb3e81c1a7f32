#include "gate/recipe.h"

#include <algorithm>
#include <set>

#include "gate/chat_stream.h"
#include "gate/recipe_folder.h"
#include "io/object_reader.h"

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{64} << 20;
constexpr int kMaxExtends = 8;

constexpr Word<Metric> kMetrics[] = {{"rate", Metric::rate},
                                     {"count", Metric::count},
                                     {"p50", Metric::p50},
                                     {"p95", Metric::p95},
                                     {"ratio", Metric::ratio}};
constexpr Word<Bound> kBounds[] = {{">=", Bound::at_least}, {"<=", Bound::at_most}};

std::optional<std::string_view> embedded(const std::string& name) {
  for (const EmbeddedFile& file : recipe_files()) {
    if (file.path == name) return file.text;
  }
  return std::nullopt;
}

// Replaces {word} by the persona's in every string; where a word is unknown, `missing` gets it.
void fill(Json& json, const std::map<std::string, std::string>& persona, std::string& missing) {
  if (json.is_structured()) {
    for (Json& item : json) fill(item, persona, missing);
    return;
  }
  if (!json.is_string()) return;
  const auto& text = json.get_ref<const std::string&>();
  std::string out;
  size_t from = 0;
  for (size_t open; (open = text.find('{', from)) != std::string::npos;) {
    const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", open + 1);
    const bool is_word = end != std::string::npos && text[end] == '}' && end > open + 1;
    out.append(text, from, open - from);
    from = is_word ? end + 1 : open + 1;
    if (!is_word) {
      out += '{';
      continue;
    }
    const std::string word = text.substr(open + 1, end - open - 1);
    const auto value = persona.find(word);
    if (value == persona.end()) {
      missing = word;
      return;
    }
    out += value->second;
  }
  json = out + text.substr(from);
}

Status fill(Json& json, const std::map<std::string, std::string>& persona, const std::string& where) {
  std::string missing;
  fill(json, persona, missing);
  if (missing.empty()) return {};
  std::string words;
  for (const auto& item : persona) words += (words.empty() ? "" : ", ") + item.first;
  return corrupt("{}: expected a word of the persona ({}), got {{{}}}", where, words, missing);
}

// The file with everything that it extends under it: its own fields win, gates of the same id, too.
Result<Json> read_extended(RecipeFolder& files, const std::string& file, int depth) {
  NIBBLE_TRY(json, files.read_json(file));
  if (!json.is_object()) return corrupt("{}: expected an object, got {}", file, json.type_name());
  const Json* base = find_value(json, "extends");
  if (base == nullptr) return std::move(json);
  if (!base->is_string() || depth == kMaxExtends) return corrupt("{}: extends: expected the name of a recipe", file);
  NIBBLE_TRY(merged, read_extended(files, base->get<std::string>() + ".json", depth + 1));
  Json gates = member(merged, "gates");
  for (const auto& item : json.items()) {
    if (item.key() != "extends" && item.key() != "gates") merged[item.key()] = item.value();
  }
  if (const Json* own = find_value(json, "gates"); own != nullptr && own->is_array() && gates.is_array()) {
    for (const Json& gate : *own) {
      const auto same = std::find_if(gates.begin(), gates.end(),
                                     [&](const Json& g) { return member(g, "id") == member(gate, "id"); });
      const bool off = member(gate, "off") == true;
      if (same == gates.end()) {
        gates.push_back(gate);
      } else if (off) {
        gates.erase(same);
      } else {
        *same = gate;
      }
    }
    merged["gates"] = gates;
  }
  return std::move(merged);
}

Result<Gate> parse_gate(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  Gate gate;
  for (const char* key : {"id", "metric", "op", "threshold"}) reader.require(key);
  reader.text("id", gate.id);
  reader.word("metric", kMetrics, gate.metric);
  reader.word("op", kBounds, gate.bound);
  reader.number("threshold", -1e9, 1e9, gate.threshold);
  reader.whole_number("min_cases", 0, 1'000'000, gate.min_cases);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  gate.report_only = gate.metric == Metric::rate && gate.bound == Bound::at_least && gate.threshold <= 0;
  return gate;
}

Result<std::map<std::string, std::string>> text_map(const Json* json, const std::string& where) {
  std::map<std::string, std::string> map;
  if (json == nullptr) return map;
  if (!json->is_object()) return corrupt("{}: expected an object of texts, got {}", where, json->type_name());
  for (const auto& item : json->items()) {
    if (!item.value().is_string()) return corrupt("{}: {}: expected a text", where, item.key());
    map[item.key()] = item.value().get<std::string>();
  }
  return map;
}

// The cases of one .gate file, each with the file's and the recipe's fields under its own.
Status read_case_file(RecipeFolder& files, const std::string& file, Recipe& recipe) {
  NIBBLE_TRY(json, files.read_json(file));
  NIBBLE_RETURN_IF_ERROR(fill(json, recipe.persona, file));
  ObjectReader reader(json, file);
  std::string name, group;
  std::vector<std::string> gates;
  reader.require("cases");
  reader.text("name", name);
  reader.text("group", group);
  reader.texts("gates", gates);
  const Json* defaults = reader.value("defaults");
  const Json* cases = reader.value("cases");
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (!cases->is_array()) return corrupt("{}: cases: expected a list, got {}", file, cases->type_name());
  if (defaults != nullptr && !defaults->is_object()) {
    return corrupt("{}: defaults: expected an object, got {}", file, defaults->type_name());
  }
  for (const Json& own : *cases) {
    const Json& id = member(own, "id");
    const std::string where =
        fmt::format("{}: {}", file, id.is_string() ? id.get<std::string>() : "a case without an id");
    Json merged = {{"category", name}, {"gates", gates}, {"system", recipe.system}, {"tools", recipe.tools}};
    if (defaults != nullptr) merged.update(*defaults);
    if (!own.is_object()) return corrupt("{}: expected an object, got {}", where, own.type_name());
    merged.update(own);
    Json params = recipe.params;
    if (const Json& further = member(merged, "params"); further.is_object()) params.update(further);
    merged["params"] = params;
    if (const Json& history = member(merged, "history"); history.is_string()) {
      const std::string history_file = "history/" + history.get<std::string>() + ".json";
      NIBBLE_TRY(messages, files.read_json(history_file));
      NIBBLE_RETURN_IF_ERROR(fill(messages, recipe.persona, history_file));
      merged["history"] = messages;
    }
    NIBBLE_TRY(one, parse_case(merged, where));
    recipe.cases.push_back(std::move(one));
  }
  return {};
}

Status check_ids(const Recipe& recipe) {
  std::set<std::string> cases, gates;
  for (const Case& one : recipe.cases) {
    if (!cases.insert(one.id).second) return corrupt("{}: expected ids that differ, got {} twice", recipe.name, one.id);
  }
  for (const Gate& gate : recipe.gates) {
    if (!gates.insert(gate.id).second)
      return corrupt("{}: expected gates that differ, got {} twice", recipe.name, gate.id);
  }
  for (const Case& one : recipe.cases) {
    for (const std::string& id : one.gates) {
      if (!gates.contains(id)) return corrupt("{}: gates: expected a gate of {}, got {}", one.id, recipe.name, id);
    }
  }
  return {};
}

Result<Recipe> parse_recipe(Json json, RecipeFolder& files, const std::string& file) {
  Recipe recipe;
  NIBBLE_TRY(persona, text_map(find_value(json, "persona"), file + ": persona"));
  recipe.persona = std::move(persona);
  for (const char* key : {"system", "tools"}) {
    if (json.contains(key)) NIBBLE_RETURN_IF_ERROR(files.include(json[key]));
  }
  if (json.contains("prompts") && json["prompts"].is_object()) {
    for (Json& prompt : json["prompts"]) NIBBLE_RETURN_IF_ERROR(files.include(prompt));
  }
  NIBBLE_RETURN_IF_ERROR(fill(json, recipe.persona, file));
  ObjectReader reader(json, file);
  std::vector<std::string> case_files;
  recipe.name = Path(file).stem().string();
  for (const char* key : {"gates", "cases"}) reader.require(key);
  reader.value("persona");
  reader.text("name", recipe.name);
  reader.text("title", recipe.title);
  reader.whole_number("version", 1, 1'000'000, recipe.version);
  reader.text("system", recipe.system);
  NIBBLE_TRY(prompts, text_map(reader.value("prompts"), file + ": prompts"));
  recipe.prompts = std::move(prompts);
  if (const Json* tools = reader.value("tools")) {
    if (!tools->is_array()) reader.expected_of("tools", "a list of tools", *tools);
    recipe.tools = *tools;
  }
  if (const Json* params = reader.value("params")) {
    if (!params->is_object()) reader.expected_of("params", "an object", *params);
    recipe.params = *params;
  }
  reader.texts("context_words", recipe.context_words);
  reader.texts("scripts", recipe.scripts);
  reader.text("hardware", recipe.hardware);
  reader.texts("cases", case_files);
  const Json* gates = reader.value("gates");
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (!gates->is_array()) return corrupt("{}: gates: expected a list, got {}", file, gates->type_name());
  for (const Json& item : *gates) {
    NIBBLE_TRY(gate, parse_gate(item, fmt::format("{}: gates[{}]", file, recipe.gates.size())));
    recipe.gates.push_back(std::move(gate));
  }
  for (const std::string& case_file : case_files) NIBBLE_RETURN_IF_ERROR(read_case_file(files, case_file, recipe));
  NIBBLE_RETURN_IF_ERROR(check_ids(recipe));
  recipe.hash = files.hash();
  return recipe;
}

}  // namespace

const std::string& Recipe::user() const {
  static const std::string nobody;
  const auto found = persona.find("user");
  return found == persona.end() ? nobody : found->second;
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : recipe_files()) {
    const Path path(file.path);
    const auto json = path.has_parent_path() ? Result<Json>(Json()) : parse_json(file.text, file.path);
    if (path.extension() == ".json" && json.ok() && (json->contains("gates") || json->contains("extends"))) {
      names.push_back(path.stem().string());
    }
  }
  return names;
}

Result<Recipe> load_recipe(const std::string& name_or_file) {
  const Path path(name_or_file);
  if (path.extension() == ".json") {
    RecipeFolder files(path.has_parent_path() ? path.parent_path() : Path("."), embedded, kMaxFileBytes);
    NIBBLE_TRY(json, read_extended(files, path.filename().string(), 0));
    return parse_recipe(std::move(json), files, path.filename().string());
  }
  const std::vector<std::string> names = recipe_names();
  if (std::find(names.begin(), names.end(), name_or_file) == names.end()) {
    return not_found("recipe: expected one of {} or a file ending in .json, got \"{}\"", fmt::join(names, ", "),
                     name_or_file);
  }
  RecipeFolder files(Path(), embedded, kMaxFileBytes);
  NIBBLE_TRY(json, read_extended(files, name_or_file + ".json", 0));
  return parse_recipe(std::move(json), files, name_or_file + ".json");
}

}  // namespace nibble::gate

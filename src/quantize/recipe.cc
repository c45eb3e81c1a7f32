#include "quantize/recipe.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/file.h"
#include "checkpoint/name_pattern.h"
#include "io/object_reader.h"
#include "quantize/recipe_files.h"

namespace nibble::quantize {
namespace {

constexpr size_t kMaxRules = 1024;

constexpr Word<Format> kFormats[] = {{"nvfp4", Format::nvfp4},
                                     {"fp8", Format::fp8},
                                     {"fp8_channel", Format::fp8_channel},
                                     {"unchanged", Format::unchanged}};
constexpr Word<Inputs> kInputs[] = {{"a16", Inputs::a16}, {"a8", Inputs::a8}, {"a4", Inputs::a4}};
constexpr Word<Scales> kScales[] = {{"max", Scales::max},
                                    {"four_over_six", Scales::four_over_six},
                                    {"mse", Scales::mse},
                                    {"local_hessian", Scales::local_hessian}};
constexpr Word<Transform> kTransforms[] = {{"none", Transform::none},
                                           {"awq_lite", Transform::awq_lite},
                                           {"awq_clip", Transform::awq_clip},
                                           {"svdquant", Transform::svdquant}};
constexpr Word<Rounding> kRoundings[] = {
    {"nearest", Rounding::nearest}, {"gptq", Rounding::gptq}, {"signround", Rounding::signround}};

Result<Rule> parse_rule(const Json& json, const std::string& where) {
  ObjectReader reader(json, where);
  Rule rule;
  const bool complete = json.contains("match") && json.contains("format");
  reader.text("match", rule.match);
  reader.word("format", kFormats, rule.format);
  reader.word("inputs", kInputs, rule.inputs);
  reader.whole_number("last_layers", 1, std::numeric_limits<int32_t>::max(), rule.last_layers);
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  if (!complete || rule.match.empty()) return corrupt("{}: expected match and format, got less", where);
  const bool fits = rule.inputs == Inputs::a16 || (rule.inputs == Inputs::a4 && rule.format == Format::nvfp4) ||
                    (rule.inputs == Inputs::a8 && checkpoint::is_fp8(rule.format));
  if (!fits) {
    return corrupt("{}: inputs: expected a16, a4 with nvfp4, or a8 with fp8 and fp8_channel, got {} with {}", where,
                   checkpoint::inputs_name(rule.inputs), checkpoint::format_name(rule.format));
  }
  return rule;
}

Result<std::vector<Rule>> parse_rules(const Json* json, const std::string& where) {
  if (json == nullptr || !json->is_array() || json->empty() || json->size() > kMaxRules) {
    return corrupt("{}: rules: expected a list of 1 to {} rules, got {}", where, kMaxRules,
                   json == nullptr    ? "none"
                   : json->is_array() ? fmt::format("{}", json->size())
                                      : json->type_name());
  }
  std::vector<Rule> rules;
  for (const Json& item : *json) {
    NIBBLE_TRY(rule, parse_rule(item, fmt::format("{}: rule {}", where, rules.size() + 1)));
    rules.push_back(std::move(rule));
  }
  return rules;
}

std::string names() {
  std::string list;
  for (const Recipe& recipe : recipes()) list += (list.empty() ? "" : ", ") + recipe.name;
  return list;
}

}  // namespace

bool Recipe::quantizes_head() const {
  return std::any_of(rules.begin(), rules.end(), [](const Rule& rule) {
    return rule.format != Format::unchanged && checkpoint::spells_module(rule.match, "lm_head");
  });
}

bool Recipe::needs_calibration() const {
  return scales == Scales::local_hessian || transform != Transform::none || rounding != Rounding::nearest ||
         effective_bits.has_value() ||
         std::any_of(rules.begin(), rules.end(), [](const Rule& rule) { return rule.inputs != Inputs::a16; });
}

Recipe uniform_recipe(Scales scales, Inputs inputs) {
  Recipe recipe;
  recipe.name = text_of(kScales, scales);
  recipe.rules = {{"*", Format::nvfp4, inputs, 0}};
  recipe.scales = scales;
  return recipe;
}

Result<Recipe> parse_recipe(const Json& json, std::string_view where) {
  const std::string place(where);
  ObjectReader reader(json, place);
  Recipe recipe;
  recipe.name = Path(place).stem().string();
  reader.text("name", recipe.name);
  reader.text("title", recipe.title);
  if (!reader.ok()) return reader.finish();
  NIBBLE_TRY(rules, parse_rules(reader.value("rules"), place));
  recipe.rules = std::move(rules);
  reader.word("scales", kScales, recipe.scales);
  reader.word("transform", kTransforms, recipe.transform);
  reader.word("rounding", kRoundings, recipe.rounding);
  reader.flag("act_order", recipe.act_order);
  reader.number("damping", 1e-9, 1, recipe.damping);
  reader.whole_number("rank", 1, 1024, recipe.rank);
  reader.flag("fp8_kv", recipe.fp8_kv);
  reader.flag("untie", recipe.untie);
  if (json.contains("effective_bits")) {
    recipe.effective_bits = 0;
    reader.number("effective_bits", 4.5, 16, *recipe.effective_bits);
  } else {
    reader.value("effective_bits");
  }
  NIBBLE_RETURN_IF_ERROR(reader.finish());
  return recipe;
}

Json recipe_json(const Recipe& recipe) {
  Json rules = Json::array();
  for (const Rule& rule : recipe.rules) {
    Json item = {{"match", rule.match},
                 {"format", checkpoint::format_name(rule.format)},
                 {"inputs", checkpoint::inputs_name(rule.inputs)}};
    if (rule.last_layers > 0) item["last_layers"] = rule.last_layers;
    rules.push_back(std::move(item));
  }
  Json json = {{"name", recipe.name},
               {"title", recipe.title},
               {"rules", std::move(rules)},
               {"scales", text_of(kScales, recipe.scales)},
               {"transform", text_of(kTransforms, recipe.transform)},
               {"rounding", text_of(kRoundings, recipe.rounding)},
               {"act_order", recipe.act_order},
               {"damping", recipe.damping},
               {"rank", recipe.rank},
               {"fp8_kv", recipe.fp8_kv},
               {"untie", recipe.untie}};
  if (recipe.effective_bits) json["effective_bits"] = *recipe.effective_bits;
  return json;
}

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> list = [] {
    std::vector<Recipe> parsed;
    for (const EmbeddedFile& file : recipe_files()) {
      const Result<Json> json = parse_json(file.text, file.path);
      NIBBLE_CHECK(json.ok());
      Result<Recipe> recipe = parse_recipe(*json, file.path);
      NIBBLE_CHECK(recipe.ok());
      parsed.push_back(std::move(recipe).value());
    }
    return parsed;
  }();
  return list;
}

Result<Recipe> find_recipe(const std::string& name_or_file) {
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name_or_file) return recipe;
  }
  const Result<std::string> text = read_file(name_or_file, 1 << 20);
  if (text.status().code() == Code::not_found) {
    return not_found("recipe: expected {} or a file, got \"{}\"", names(), name_or_file)
        .with_hint("nibble quantize --recipe list says what each of them is for");
  }
  NIBBLE_RETURN_IF_ERROR(text.status());
  NIBBLE_TRY(json, parse_json(*text, name_or_file));
  return parse_recipe(json, name_or_file);
}

std::string recipe_list() {
  std::string text;
  for (const Recipe& recipe : recipes()) text += fmt::format("{:<15}{}\n", recipe.name, recipe.title);
  return text;
}

}  // namespace nibble::quantize

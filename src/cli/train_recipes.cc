#include "cli/train_recipes.h"

#include <algorithm>
#include <array>

#include "base/file.h"

namespace nibble::cli {
namespace {

// These belong to a run, not to a way of training.
constexpr std::array<std::string_view, 9> kNotInRecipes = {"help", "output", "resume", "recipe", "json",
                                                           "plan", "check",  "memory", "threads"};

Result<std::vector<std::string>> words_of(const std::string& key, const Json& value) {
  if (value.is_string()) return std::vector{value.get<std::string>()};
  if (value.is_number() || value.is_boolean()) return std::vector{value.dump()};
  if (value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& v) { return v.is_string(); })) {
    return value.get<std::vector<std::string>>();
  }
  return invalid_argument("recipe: {}: expected a text, a number, true, false or a list of texts, got {}", key,
                          value.type_name());
}

std::string names() {
  std::string list;
  for (const Recipe& recipe : recipes()) list += (list.empty() ? "" : ", ") + recipe.name;
  return list;
}

}  // namespace

const std::vector<Recipe>& recipes() {
  // 16,384 tokens a step, in micro-batches of a quarter.
  static const std::vector<Recipe> list = {
      {"sft",
       "the usual start of a whole fine-tune; not measured here",
       {{"mode", "sft"},
        {"train", "all"},
        {"lr", 1e-5},
        {"epochs", 3},
        {"batch", 64},
        {"batch-tokens", 4096},
        {"accumulate", 4}}},
      {"qat",
       "new behaviour and four bits in one stage, with a teacher against forgetting; not measured here",
       {{"mode", "qat"},
        {"train", "linears"},
        {"kl", 0.5},
        {"lr", 1e-5},
        {"epochs", 3},
        {"batch", 64},
        {"batch-tokens", 4096},
        {"accumulate", 4}}},
      {"qad",
       "published healing of billions of parameters: small steps under the scales of the start; not measured here",
       {{"mode", "qad"},
        {"train", "linears"},
        {"strategy", "mse"},
        {"scales", "frozen"},
        {"lr", 1e-6},
        {"batch", 64},
        {"batch-tokens", 4096},
        {"accumulate", 4}}},
      {"qad-tiny",
       "measured on tiny-voice, 8.4 M parameters: KL .0129 to .0006 (docs/healing.md)",
       {{"mode", "qad"},
        {"train", "linears"},
        {"strategy", "mse"},
        {"scales", "frozen"},
        {"lr", 2e-5},
        {"steps", 250},
        {"batch", 4},
        {"warmup", 5},
        {"weight-decay", 0}}}};
  return list;
}

Result<Recipe> find_recipe(const std::string& name_or_file) {
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name_or_file) return recipe;
  }
  auto text = read_file(name_or_file, 64 << 10);
  if (text.status().code() == Code::not_found) {
    return not_found("recipe: expected {} or a file, got \"{}\"", names(), name_or_file)
        .with_hint("nibble train --recipe list shows what each of them sets");
  }
  NIBBLE_RETURN_IF_ERROR(text.status());
  NIBBLE_TRY(flags, parse_json(*text, name_or_file));
  if (!flags.is_object()) return corrupt("{}: expected an object of flags, got {}", name_or_file, flags.type_name());
  return Recipe{name_or_file, "a file", std::move(flags)};
}

Status apply_recipe(CLI::App& command, const Recipe& recipe) {
  for (const auto& item : recipe.flags.items()) {
    const std::string& key = item.key();
    CLI::Option* option = command.get_option_no_throw("--" + key);
    if (option == nullptr || std::ranges::find(kNotInRecipes, key) != kNotInRecipes.end()) {
      return invalid_argument("recipe {}: expected a flag of nibble train that says how to train, got \"{}\"",
                              recipe.name, key);
    }
    if (option->count() > 0) continue;
    NIBBLE_TRY(words, words_of(key, item.value()));
    try {
      for (const std::string& word : words) option->add_result(word);
      option->run_callback();
    } catch (const CLI::Error& error) {
      return invalid_argument("recipe {}: {}", recipe.name, error.what());
    }
  }
  return {};
}

std::string recipe_list() {
  std::string text;
  for (const Recipe& recipe : recipes()) {
    text += fmt::format("{:<10}{}\n          ", recipe.name, recipe.source);
    for (const auto& item : recipe.flags.items()) {
      text += fmt::format(" --{} {}", item.key(),
                          item.value().is_string() ? item.value().get<std::string>() : item.value().dump());
    }
    text += "\n";
  }
  return text;
}

}  // namespace nibble::cli

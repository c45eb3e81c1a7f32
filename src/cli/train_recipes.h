// Recipes: sets of flags for nibble train that go together, by name or from a file. A flag that is given wins.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "io/json.h"

namespace nibble::cli {

struct Recipe {
  std::string name;
  std::string source;  // where the values come from
  Json flags;          // {"lr": 1e-5, …}: the long names without their dashes
};

/// Those that come with nibble.
const std::vector<Recipe>& recipes();

/// One of them, or a JSON file of at most 64 KB that holds an object like Recipe::flags.
Result<Recipe> find_recipe(const std::string& name_or_file);

/// Gives the recipe's values to the options of `command` that the command line left out. `invalid_argument` for a key
/// that is no flag, or that says what a run is rather than how it trains, and for a value that the flag refuses.
Status apply_recipe(CLI::App& command, const Recipe& recipe);

/// What `--recipe list` prints.
std::string recipe_list();

}  // namespace nibble::cli

// The fields of a generation recipe, read and checked. Internal to recipe.cc.
#pragma once

#include <string>

#include "synth/recipe.h"

namespace nibble::synth {

/// Everything but the fingerprint, from JSON whose "@file" texts are already in place. `where` stands before errors.
Result<Recipe> read_fields(const Json& json, const std::string& where);

/// What no single field shows: lists, tools and exchanges that are named exist, every word has a list, every category
/// can be drawn.
Status check_recipe(const Recipe& recipe, const std::string& where);

}  // namespace nibble::synth

// Words in braces: how the texts of a recipe speak of who and what was drawn for one conversation.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "io/json.h"

namespace nibble::synth {

using Words = std::map<std::string, std::string, std::less<>>;

/// The text with every {word} replaced: a name of lower-case letters, digits, _ and dots that begins with a letter.
/// What is replaced is not looked at again, and braces around anything else stay. `not_found` for a word that `words`
/// lacks.
Result<std::string> fill(std::string_view text, const Words& words);

/// The same for every string inside a JSON value; keys stay.
Result<Json> fill_json(const Json& json, const Words& words);

}  // namespace nibble::synth

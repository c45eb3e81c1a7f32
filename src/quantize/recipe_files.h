// The files of recipes/quant, as they were when nibble was built.
#pragma once

#include <span>
#include <string_view>

namespace nibble::quantize {

struct RecipeFile {
  std::string_view name, text;  // name: without .json
};
std::span<const RecipeFile> recipe_files();

}  // namespace nibble::quantize

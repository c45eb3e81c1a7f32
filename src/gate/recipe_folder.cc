#include "gate/recipe_folder.h"

namespace nibble::gate {

RecipeFolder::RecipeFolder(Path folder, Embedded embedded, uint64_t max_file_bytes)
    : folder_(std::move(folder)), embedded_(std::move(embedded)), max_file_bytes_(max_file_bytes) {}

Result<std::string> RecipeFolder::read(const std::string& name) {
  if (name.empty() || Path(name).is_absolute() || name.find("..") != std::string::npos) {
    return corrupt("recipe: expected the name of a file beside it, got \"{}\"", name);
  }
  std::error_code ignored;
  std::string text;
  if (!folder_.empty() && std::filesystem::exists(folder_ / name, ignored)) {
    NIBBLE_TRY(found, read_file(folder_ / name, max_file_bytes_));
    text = std::move(found);
  } else if (const auto found = embedded_(name)) {
    text = *found;
  } else {
    return not_found("{}: expected a file {}, got none", name,
                     folder_.empty() ? "in the binary" : "in " + folder_.string() + " or in the binary");
  }
  hash_.add(name).add(text);
  return text;
}

Result<Json> RecipeFolder::read_json(const std::string& name) {
  NIBBLE_TRY(text, read(name));
  return parse_json(text, name);
}

Status RecipeFolder::include(Json& json) {
  if (!json.is_string() || json.get_ref<const std::string&>().rfind('@', 0) != 0) return {};
  const std::string name = json.get<std::string>().substr(1);
  if (Path(name).extension() == ".json") {
    NIBBLE_TRY(document, read_json(name));
    json = std::move(document);
  } else {
    NIBBLE_TRY(text, read(name));
    json = std::move(text);
  }
  return {};
}

}  // namespace nibble::gate

#include "synth/recipe.h"

#include <algorithm>

#include "base/file.h"
#include "gate/recipe.h"
#include "gate/recipe_folder.h"
#include "synth/recipe_fields.h"

namespace nibble::synth {
namespace {

constexpr std::string_view kGateFolder = "gate/";
constexpr uint64_t kMaxFileBytes = uint64_t{16} << 20;

// What is said to a companion in training is what the gates say to it: one copy of its prompt and its tools.
std::optional<std::string_view> embedded(const std::string& name) {
  const bool of_gate = name.rfind(kGateFolder, 0) == 0;
  for (const EmbeddedFile& file : of_gate ? gate::recipe_files() : recipe_files()) {
    if (file.path == (of_gate ? name.substr(kGateFolder.size()) : name)) return file.text;
  }
  return std::nullopt;
}

Result<Recipe> parse(std::string_view text, const std::string& file, gate::RecipeFolder& files) {
  NIBBLE_TRY(json, parse_json(text, file));
  for (const char* key : {"system", "tools", "data", "prompt", "repair", "exchanges"}) {
    if (json.is_object() && json.contains(key)) NIBBLE_RETURN_IF_ERROR(files.include(json[key]));
  }
  NIBBLE_TRY(recipe, read_fields(json, file));
  NIBBLE_RETURN_IF_ERROR(check_recipe(recipe, file));
  files.add(text);
  recipe.fingerprint = files.hash();
  return std::move(recipe);
}

}  // namespace

int64_t Recipe::quota() const {
  int64_t sum = 0;
  for (const Category& one : categories) sum += one.quota;
  return sum;
}

const Category* Recipe::category(std::string_view id) const {
  const auto found = std::find_if(categories.begin(), categories.end(), [&](const Category& c) { return c.id == id; });
  return found == categories.end() ? nullptr : &*found;
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : recipe_files()) {
    const Path path(file.path);
    const auto json = path.extension() == ".json" ? parse_json(file.text, file.path) : Result<Json>(Json());
    if (json.ok() && json->is_object() && json->contains("categories")) names.push_back(path.stem().string());
  }
  return names;
}

Result<Recipe> load_recipe(const std::string& name_or_file) {
  const Path path(name_or_file);
  if (path.extension() == ".json") {
    gate::RecipeFolder files(path.has_parent_path() ? path.parent_path() : Path("."), embedded, kMaxFileBytes);
    NIBBLE_TRY(text, read_file(path, kMaxFileBytes));
    return parse(text, path.filename().string(), files);
  }
  const std::vector<std::string> names = recipe_names();
  if (std::find(names.begin(), names.end(), name_or_file) == names.end()) {
    return not_found("recipe: expected one of {} or a file ending in .json, got \"{}\"", fmt::join(names, ", "),
                     name_or_file);
  }
  gate::RecipeFolder files({}, embedded, kMaxFileBytes);
  NIBBLE_TRY(text, files.read(name_or_file + ".json"));
  return parse(text, name_or_file + ".json", files);
}

Result<Recipe> parse_recipe(std::string_view text, std::string_view name,
                            const std::map<std::string, std::string>& files) {
  const auto given_or_embedded = [&](const std::string& file) -> std::optional<std::string_view> {
    const auto given = files.find(file);
    return given == files.end() ? embedded(file) : given->second;
  };
  gate::RecipeFolder all({}, given_or_embedded, kMaxFileBytes);
  return parse(text, std::string(name), all);
}

}  // namespace nibble::synth

#include "synth/recipe.h"

#include <algorithm>

#include "base/file.h"
#include "base/sha256.h"
#include "gate/recipe.h"
#include "synth/recipe_fields.h"

namespace nibble::synth {
namespace {

constexpr std::string_view kGateFolder = "gate/";
constexpr uint64_t kMaxFileBytes = uint64_t{16} << 20;

// Where the files of a recipe come from; remembers their texts for its fingerprint.
class Files {
 public:
  Files(Path folder, const std::map<std::string, std::string>* given) : folder_(std::move(folder)), given_(given) {}

  Result<std::string> read(const std::string& name) {
    if (name.empty() || Path(name).is_absolute() || name.find("..") != std::string::npos) {
      return corrupt("recipe: expected the name of a file beside it, got \"{}\"", name);
    }
    NIBBLE_TRY(text, find(name));
    hash_.add(name).add(text);
    return std::move(text);
  }

  void add(std::string_view text) { hash_.add(text); }
  std::string fingerprint() { return hash_.hex(); }

 private:
  Result<std::string> find(const std::string& name) const {
    if (given_ != nullptr) {
      if (const auto found = given_->find(name); found != given_->end()) return found->second;
    }
    std::error_code ignored;
    if (!folder_.empty() && std::filesystem::exists(folder_ / name, ignored)) {
      return read_file(folder_ / name, kMaxFileBytes);
    }
    // What is said to a companion in training is what the gates say to it: one copy of its prompt and its tools.
    const bool of_gate = name.rfind(kGateFolder, 0) == 0;
    for (const EmbeddedFile& file : of_gate ? gate::recipe_files() : recipe_files()) {
      if (file.path == (of_gate ? name.substr(kGateFolder.size()) : name)) return std::string(file.text);
    }
    return not_found("{}: expected a file {}, got none", name,
                     folder_.empty() ? "in the binary" : "in " + folder_.string() + " or in the binary");
  }

  Path folder_;
  const std::map<std::string, std::string>* given_;
  Sha256 hash_;
};

// A text "@file" is replaced by the file: its text, or its JSON where the name ends so.
Status include(Json& json, Files& files) {
  if (!json.is_string() || json.get_ref<const std::string&>().rfind('@', 0) != 0) return {};
  const std::string name = json.get<std::string>().substr(1);
  NIBBLE_TRY(text, files.read(name));
  if (Path(name).extension() == ".json") {
    NIBBLE_TRY(document, parse_json(text, name));
    json = std::move(document);
  } else {
    json = std::move(text);
  }
  return {};
}

Result<Recipe> parse(std::string_view text, const std::string& file, Files& files) {
  NIBBLE_TRY(json, parse_json(text, file));
  for (const char* key : {"system", "tools", "data", "prompt", "repair", "exchanges"}) {
    if (json.is_object() && json.contains(key)) NIBBLE_RETURN_IF_ERROR(include(json[key], files));
  }
  NIBBLE_TRY(recipe, read_fields(json, file));
  NIBBLE_RETURN_IF_ERROR(check_recipe(recipe, file));
  files.add(text);
  recipe.fingerprint = files.fingerprint();
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
    Files files(path.has_parent_path() ? path.parent_path() : Path("."), nullptr);
    NIBBLE_TRY(text, read_file(path, kMaxFileBytes));
    return parse(text, path.filename().string(), files);
  }
  const std::vector<std::string> names = recipe_names();
  if (std::find(names.begin(), names.end(), name_or_file) == names.end()) {
    return not_found("recipe: expected one of {} or a file ending in .json, got \"{}\"", fmt::join(names, ", "),
                     name_or_file);
  }
  Files files({}, nullptr);
  NIBBLE_TRY(text, files.read(name_or_file + ".json"));
  return parse(text, name_or_file + ".json", files);
}

Result<Recipe> parse_recipe(std::string_view text, std::string_view name,
                            const std::map<std::string, std::string>& files) {
  Files all({}, &files);
  return parse(text, std::string(name), all);
}

}  // namespace nibble::synth

// A gate recipe: gates with their thresholds, the cases that feed them, and how the model is asked (docs/gates.md).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/embedded_file.h"
#include "base/file.h"
#include "base/result.h"
#include "gate/case.h"

namespace nibble::gate {

enum class Metric : uint8_t { rate, count, p50, p95, ratio };
enum class Bound : uint8_t { at_least, at_most };

struct Gate {
  std::string id;
  Metric metric = Metric::rate;
  Bound bound = Bound::at_least;
  double threshold = 1;
  int64_t min_cases = 0;     // fewer: inconclusive, which is a failure
  bool report_only = false;  // a rate that must be at least 0: shown, never a failure

  bool passes(double value) const { return bound == Bound::at_least ? value >= threshold : value <= threshold; }
};

struct Recipe {
  std::string name, title;
  int64_t version = 1;
  std::map<std::string, std::string> persona;
  std::string system;
  std::map<std::string, std::string> prompts;
  Json tools = Json::array();
  Json params = Json::object();
  std::vector<std::string> context_words;
  std::vector<std::string> scripts = {"Latin", "Kannada", "Devanagari"};
  std::string hardware;
  std::vector<Gate> gates;
  std::vector<Case> cases;  // ids differ
  std::string hash;         // SHA-256 over all the files it was made of

  const std::string& user() const;  // persona.user, or ""
};

/// The recipes in the binary, by name: the files of recipes/gate.
std::span<const EmbeddedFile> recipe_files();
std::vector<std::string> recipe_names();

/// A recipe of the binary by its name, or of a file by its path (a name that ends in .json). Files that it names are
/// looked for beside it, then in the binary. `not_found` lists the names; `corrupt` says file and field of the first
/// thing that is wrong, an operator or a key that nobody knows among it.
Result<Recipe> load_recipe(const std::string& name_or_file);

/// Cases of the small world, one a JSON line, as gates of their categories (read_cases). They keep their own system
/// prompts and tools.
///   {"id": 7, "category": "memory", "system": "…", "tools": […], "turns": [
///     {"user": "…", "expect": {"tool": "search_memory", "args": ["Leela"], "must": ["not remember"]},
///      "tool_results": ["{\"results\": []}"]}]}
/// A turn passes when as many messages with calls were made as it has tool_results, the first call of each has that
/// name and every string of args in its compact arguments, and the reply that ends it holds every string of must.
Result<std::vector<Case>> parse_cases(std::string_view text, std::string_view name);
Result<std::vector<Case>> read_cases(const Path& file);

}  // namespace nibble::gate

#include "gate/suite.h"

#include <algorithm>

#include "gate/chat_stream.h"
#include "gate/ifeval.h"
#include "gate/suite_loader.h"
#include "io/jsonl.h"
#include "text/case_fold.h"

namespace nibble::gate {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr size_t kMaxLineBytes = size_t{4} << 20;

// Writing systems of the languages that benchmarks ask for: none of them is a fault of a reply.
constexpr const char* kScripts[] = {"Latin",    "Arabic",   "Armenian", "Bengali",  "Cyrillic", "Devanagari",
                                    "Georgian", "Greek",    "Gujarati", "Gurmukhi", "Han",      "Hangul",
                                    "Hebrew",   "Hiragana", "Kannada",  "Katakana", "Khmer",    "Malayalam",
                                    "Oriya",    "Sinhala",  "Tamil",    "Telugu",   "Thai"};

struct Known {
  const char* name;
  const char* title;
  const char* licence;  // as published
  int64_t version;      // of our loader and scorer
  int max_tokens;
  Status (*load)(SuiteLoader& loader);
};

constexpr Known kSuites[] = {
    {"bfcl", "Berkeley Function Calling Leaderboard v4, single-turn parts", "Apache-2.0", 1, 1024, load_bfcl},
    {"gsm8k", "GSM8K test", "MIT", 1, 1024, load_gsm8k},
    {"ifeval", "IFEval", "Apache-2.0", kIfevalCheckers, 2048, load_ifeval},
};

// The name of the licence file, or "".
Result<std::string> licence_in(const Path& folder) {
  std::error_code error;
  std::string found;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const std::string stem = text::case_fold(it->path().stem().string());
    const bool licence = stem == "license" || stem == "licence" || stem == "copying";
    if (licence && (found.empty() || name < found)) found = name;
  }
  if (error) return not_found("{}: expected the folder of a suite: {}", folder.string(), error.message());
  return found;
}

}  // namespace

SuiteLoader::SuiteLoader(std::string name, std::string title, int64_t version, int max_tokens, Path folder)
    : folder_(std::move(folder)) {
  Recipe& recipe = suite_.recipe;
  recipe.name = std::move(name);
  recipe.title = std::move(title);
  recipe.version = version;
  recipe.scripts.assign(std::begin(kScripts), std::end(kScripts));
  recipe.params = {{"temperature", 0},
                   {"max_tokens", max_tokens},
                   {"seed", 1},
                   {"chat_template_kwargs", {{"enable_thinking", false}}}};
  hash_.add(recipe.name).add(fmt::format("{}", version));
}

bool SuiteLoader::has(const std::string& file) const {
  std::error_code ignored;
  return std::filesystem::is_regular_file(folder_ / file, ignored);
}

Result<std::string> SuiteLoader::first_of(std::span<const std::string_view> files) const {
  for (const std::string_view file : files) {
    if (has(std::string(file))) return std::string(file);
  }
  return not_found("{}: expected {} in {}, got none", suite_.recipe.name, fmt::join(files, " or "), folder_.string());
}

Status SuiteLoader::for_each_object(const std::string& file,
                                    const std::function<Status(const Json&, const std::string&)>& each) {
  NIBBLE_TRY(text, read_file(folder_ / file, kMaxFileBytes));
  hash_.add(file).add(text);
  return for_each_line(std::string_view(text), [&](const TextLine& line) -> Status {
    const std::string where = fmt::format("{}: line {}", file, line.number);
    NIBBLE_TRY(object, parse_json(line.text, where, {.max_bytes = kMaxLineBytes}));
    if (!object.is_object()) return corrupt("{}: expected an object, got {}", where, object.type_name());
    return each(object, where);
  });
}

Status SuiteLoader::add_case(Case one, const std::string& where) {
  if (!ids_.insert(one.id).second) return corrupt("{}: expected an id of its own, got \"{}\" again", where, one.id);
  one.why = suite_.recipe.title;
  one.params = suite_.recipe.params;
  suite_.recipe.cases.push_back(std::move(one));
  return {};
}

void SuiteLoader::add_gate(const std::string& id) {
  suite_.recipe.gates.push_back(
      {.id = id, .metric = Metric::rate, .bound = Bound::at_least, .threshold = 0, .report_only = true});
}

void SuiteLoader::compare_count(const std::string& what, size_t loaded, size_t published) {
  if (loaded != published) say(fmt::format("warning: {}: {} loaded, {} are published", what, loaded, published));
}

Result<Suite> SuiteLoader::finish() {
  if (suite_.recipe.cases.empty()) return corrupt("{}: expected a case to play, got none", suite_.recipe.name);
  suite_.recipe.hash = hash_.hex();
  return std::move(suite_);
}

Result<std::string> text_member(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key);
  if (!value.is_string()) return corrupt("{}: {}: expected a text, got {}", where, key, value.type_name());
  return value.get<std::string>();
}

Result<const Json*> list_member(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key);
  if (!value.is_array()) return corrupt("{}: {}: expected a list, got {}", where, key, value.type_name());
  return &value;
}

std::vector<std::string> suite_names() {
  std::vector<std::string> names;
  for (const Known& suite : kSuites) names.emplace_back(suite.name);
  return names;
}

Result<Suite> load_suite(const std::string& name, const Path& folder, bool has_rights) {
  const auto* known =
      std::find_if(std::begin(kSuites), std::end(kSuites), [&](const Known& s) { return s.name == name; });
  if (known == std::end(kSuites)) {
    return not_found("suite: expected one of {}, got \"{}\"", fmt::join(suite_names(), ", "), name);
  }
  NIBBLE_TRY(licence, licence_in(folder));
  if (licence.empty() && !has_rights) {
    return invalid_argument("{}: expected a licence file in {}, got none", name, folder.string())
        .with_hint(fmt::format("put the LICENSE that the suite was published with ({}) beside its files, or say "
                               "--i-have-rights",
                               known->licence));
  }
  SuiteLoader loader(known->name, known->title, known->version, known->max_tokens, folder);
  loader.say(fmt::format("{}: {}; published as {}, {}", name, known->title, known->licence,
                         licence.empty() ? "no licence file: used by --i-have-rights" : "licence file " + licence));
  NIBBLE_RETURN_IF_ERROR(known->load(loader));
  NIBBLE_TRY(suite, loader.finish());
  suite.about.push_back(
      fmt::format("{}: {} cases, scorer version {}", name, suite.recipe.cases.size(), suite.recipe.version));
  return std::move(suite);
}

}  // namespace nibble::gate

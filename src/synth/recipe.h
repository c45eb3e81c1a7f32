// A recipe of synthetic conversations: categories with their quotas, what is drawn for each conversation, how a teacher
// is asked, and what its answers must be. docs/generate.md says how one is written.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/embedded_file.h"
#include "base/result.h"
#include "io/json.h"
#include "text/pattern.h"

namespace nibble::synth {

enum class Kind : uint8_t {
  write,  // the teacher writes whole conversations, several a request
  roll,   // user, tools and their results come from the recipe; the teacher plays the assistant
};

/// Both ends belong to it.
struct Range {
  int64_t low = 0, high = 0;

  bool holds(int64_t value) const { return value >= low && value <= high; }
};

/// A word and the list that it is drawn from. Where the list holds records, each field becomes `word.field`; with an
/// empty word, `field`.
struct Draw {
  std::string word, list;
};

/// A regular expression over the words of one role.
struct PatternRule {
  std::string name, role;
  bool must = false;  // else it must not match
  text::Pattern pattern;
};

/// What one conversation must be.
struct Rules {
  Range tokens = {64, 2048};
  int64_t sentences = 0, words = 0;                                 // of one spoken message at most; 0 = any
  std::vector<std::string> clean = {"think", "md", "tag", "role"};  // detectors that must not hit what is spoken
  std::vector<std::string> scripts = {"Latin", "Kannada", "Devanagari"};
  Range calls = {0, 64};                 // in the conversation
  std::vector<std::string> call_one_of;  // of these tools at least one is called; empty: any or none
  bool direct = false;                   // a message that calls says nothing beside it
  bool honest = false;        // where every result of a turn was empty, its answer says so and makes nothing up
  bool phantom = true;        // no claim of an action in a turn without a call
  bool personal_data = true;  // no phone numbers, mail addresses, card numbers
  std::vector<PatternRule> patterns;
};

/// roll: one message that the teacher must give, and what answers it.
struct Step {
  std::string call;                // the tool that must be called, once; empty: the reply that ends the turn
  std::vector<std::string> words;  // which its arguments must hold
  Json result;                     // the tool's answer: text as it is, else its JSON
  std::vector<std::string> must, must_any, must_not;  // of the reply, whatever its case
};

/// roll: one thing that a user wants.
struct Exchange {
  std::string id;
  std::vector<Draw> draw;
  std::vector<std::string> pair;  // two texts that together must not be held out; or none
  std::vector<std::string> user;  // one of them is said
  std::vector<Step> steps;        // the last one is a reply
};

struct Choice {
  size_t index = 0;  // of Recipe::exchanges
  int64_t weight = 1;
};

struct Category {
  std::string id;
  int64_t quota = 0;
  Range turns = {1, 1};  // messages of the user
  Rules rules;
  std::vector<Draw> draw;
  // write
  std::string brief;
  std::vector<std::string> rows;  // one line for each conversation to be written, one of these
  // roll
  std::vector<Choice> exchanges;
};

struct HoldOutRule {
  bool pairs = false;              // the key is entity pairs; text overlap is then counted, no more
  std::vector<std::string> gates;  // gate recipes whose user texts are held out
};

/// Of the finished set.
struct SetRules {
  double tool_calls = 0.2;  // least share of conversations with a call
  double near = 0.8;        // Jaccard similarity of word triples from which two are one; 0 = only exact
};

struct Prices {
  double input_per_million = 0, output_per_million = 0;  // of tokens
};

struct Recipe {
  std::string name, title;
  int64_t version = 1;
  Kind kind = Kind::write;
  std::string system;
  Json tools = Json::array();
  std::map<std::string, Json> data;  // lists of texts, numbers or records
  std::vector<Draw> persona;         // for each request (write) or conversation (roll)
  std::string prompt;                // write: the request
  std::string repair;                // hands back what is bad; roll: empty asks again without a word
  int64_t batch = 50;                // write: conversations a request at most
  Json params = Json::object();      // further fields of a request
  int64_t max_tokens = 1024;         // of an answer
  Prices prices;
  HoldOutRule hold_out;
  SetRules set;
  std::vector<Exchange> exchanges;
  std::vector<Category> categories;
  std::string fingerprint;  // SHA-256 over all files it was made of

  int64_t quota() const;
  const Category* category(std::string_view id) const;
};

/// The recipes in the binary with their prompts and data: the files of recipes/generate.
std::span<const EmbeddedFile> recipe_files();
std::vector<std::string> recipe_names();

/// A recipe of the binary by its name, or of a file by its path (a name that ends in .json). Files that it names are
/// looked for beside it, then in the binary; "gate/…" are those of the gate recipes there. `not_found` lists the names;
/// `corrupt` says file and field of the first thing that is wrong: an unknown key, a list or an exchange that is not
/// there, a word that nothing draws.
Result<Recipe> load_recipe(const std::string& name_or_file);

/// The same from parts, for tests; `files` stand for those beside it.
Result<Recipe> parse_recipe(std::string_view text, std::string_view name,
                            const std::map<std::string, std::string>& files = {});

}  // namespace nibble::synth
